// Drives a gradegate server with oauth4webapi, which knows nothing of it. Its
// arguments: the server's URL, a refresh token, and the token of a verifier.
import * as oauth from 'oauth4webapi'
import assert from 'node:assert/strict'

const [url, refreshToken, verifier] = process.argv.slice(2)
const insecure = { [oauth.allowInsecureRequests]: true }
const issuer = new URL(url)
const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { ...insecure, algorithm: 'oauth2' }))
assert.equal(as.issuer, url)
const resource = new URL(url)
const rs = await oauth.processResourceDiscoveryResponse(resource, await oauth.resourceDiscoveryRequest(resource, insecure))
assert.deepEqual(rs.authorization_servers, [url])

const client = { client_id: 'anybody' }
const nobody = oauth.None()

// Refresh (RFC 6749).
const session = await oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, nobody, refreshToken, insecure))
assert.ok(session.refresh_token && session.refresh_token !== refreshToken)

// Exchange (RFC 8693).
const exchange = (parameters) => oauth.genericTokenEndpointRequest(as, client, nobody, 'urn:ietf:params:oauth:grant-type:token-exchange', {
  subject_token: session.access_token, subject_token_type: 'urn:ietf:params:oauth:token-type:access_token', ...parameters,
}, insecure)
const child = await oauth.processGenericTokenEndpointResponse(as, client, await exchange({ scope: 'jobs:read' }))
assert.equal(child.scope, 'jobs:read')
await assert.rejects(async () => oauth.processGenericTokenEndpointResponse(as, client, await exchange({ scope: 'admin:*' })), { error: 'invalid_scope' })

// Introspection (RFC 7662): the verifier proves who it is with its own token.
const caller = oauth.ClientSecretBasic(verifier)
const about = async (token) => oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, caller, token, insecure))
const active = await about(child.access_token)
assert.equal(active.active, true)
assert.equal(active.scope, 'jobs:read')
assert.equal(active.iss, url)

// Revocation (RFC 7009) of the session takes the child along, and the refresh token.
await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, nobody, session.access_token, insecure))
await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, nobody, session.access_token, insecure))
assert.deepEqual(await about(child.access_token), { active: false })
assert.deepEqual(await about(session.access_token), { active: false })
await assert.rejects(async () => oauth.processRefreshTokenResponse(as, client,
  await oauth.refreshTokenGrantRequest(as, client, nobody, session.refresh_token, insecure)), { error: 'invalid_grant' })

// A resource request with the challenge of RFC 6750.
const denied = await oauth.protectedResourceRequest(child.access_token, 'GET', new URL('/v1/whoami', url), undefined, undefined, insecure).catch((e) => e)
assert.ok(denied instanceof oauth.WWWAuthenticateChallengeError)
assert.equal(denied.cause[0].parameters.error, 'invalid_token')
console.log('ok')
