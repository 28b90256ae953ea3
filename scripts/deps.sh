#!/bin/sh
# Installs what the tests need beside Go: PostgreSQL's server, bubblewrap, nginx,
# HAProxy, Node and npm.
# As root on Debian it does so; elsewhere it says what is missing.
set -eu

missing=""
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 || missing="$missing postgresql"
command -v bwrap >/dev/null 2>&1 || missing="$missing bubblewrap"
command -v setpriv >/dev/null 2>&1 || missing="$missing util-linux"
# On Debian they lie where only root's PATH leads.
for name in nginx haproxy; do
	[ -x "/usr/sbin/$name" ] || command -v "$name" >/dev/null 2>&1 || missing="$missing $name"
done
command -v node >/dev/null 2>&1 || missing="$missing nodejs"
command -v npm >/dev/null 2>&1 || missing="$missing npm"
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "installing$missing"
	# A cluster of the system's own is not wanted: the tests start theirs.
	mkdir -p /etc/postgresql-common
	[ -f /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
	# Nor are proxies of the system's own, which would take its port 80.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		trap 'rm -f "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	apt-get update -qq
	# shellcheck disable=SC2086 # a list of package names
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
	for name in nginx haproxy; do
		case " $missing " in *" $name "*) systemctl disable -q "$name" 2>/dev/null || true ;; esac
	done
	exit 0
fi
echo "The tests need these packages (Debian's names):$missing" >&2
echo "fix: apt-get install$missing" >&2
exit 1
