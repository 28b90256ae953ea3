package proxy

import (
	"fmt"
	"strings"
)

// The clients. A token is bound to friend; stranger wants to look like friend.
const (
	friend   = "127.0.0.5"
	stranger = "127.0.0.6"
	proxyIP  = "127.0.0.1" // as gradegate sees it
)

// variant is one request by which a client pretends to be friend.
type variant struct {
	name  string
	lines string // header lines, each with its end
	first string // "" or the request line's form, with %s for the path
	body  string
	// broken requests may be refused altogether, by whichever program.
	broken bool
}

// raw is the request as it goes over the wire.
func (v variant) raw(path, host, secret string) string {
	first := v.first
	if first == "" {
		first = "GET %s HTTP/1.1"
	}
	return fmt.Sprintf(first, path) + "\r\nHost: " + host + "\r\n" + v.lines + "Authorization: Bearer " + secret + "\r\n\r\n" + v.body
}

// sound values are text that any program has to pass on or drop.
var sound = []string{
	// The plain lie, and lists that end in us, in the proxy, or in nobody.
	friend, friend + "," + friend, friend + ", " + stranger, stranger + ", " + friend, friend + ", " + proxyIP, proxyIP + ", " + friend,
	friend + "," + proxyIP + "," + proxyIP, proxyIP, proxyIP + ", " + proxyIP, friend + ", unknown", "unknown, " + friend, "10.0.0.1, " + friend,
	// Space, tabs and empty elements.
	"", " ", ",", ",,", "  " + friend, "\t" + friend, friend + "\t", friend + "  ", friend + ",", "," + friend, ",," + friend + ",,", friend + " ,\t, ", " , " + friend,
	friend + " " + friend, friend + ";" + friend, friend + "|" + friend, "127.0.0. 5", "127. 0.0.5",
	// Other forms of the same address.
	"::ffff:" + friend, "[::ffff:" + friend + "]", "[::ffff:" + friend + "]:80", "::ffff:7f00:5", "::FFFF:7F00:0005", "0:0:0:0:0:ffff:7f00:5",
	"::" + friend, "64:ff9b::" + friend, "2002:7f00:5::", "0000:0000:0000:0000:0000:ffff:7f00:0005", "::ffff:127.0.0.005",
	friend + "%lo", "::ffff:" + friend + "%lo", "::ffff:" + friend + "%25lo", "[::ffff:" + friend + "%lo]:1", "fe80::1%lo", friend + "%",
	friend + ":80", friend + ":0", friend + ":", friend + ":65536", friend + ":http", "[" + friend + "]", "[" + friend + "]:80", "[" + friend, friend + "]", "[]",
	"127.0.0.05", "127.000.000.005", "0127.0.0.5", "0177.0.0.5", "0177.0.0.05", "0x7f.0.0.5", "0x7f.0x0.0x0.0x5", "0x7f000005", "0X7F000005",
	"2130706437", "017700000005", "127.5", "127.0.5", "127.0.0.5.", ".127.0.0.5", "127.0.0.261", "127.0.0.-5", "+127.0.0.5", "127.0.0.5e0", "127.0.0.5/32", "127.0.0.5/0",
	"0", "0.0.0.0", "::", "::1", "[::1]", "localhost", "127.0.0.5.nip.io", "5.0.0.127.in-addr.arpa",
	// Quotes and other wrapping.
	`"` + friend + `"`, `'` + friend + `'`, `"` + friend, friend + `"`, `"` + friend + `:80"`, `"\` + friend + `"`, `\"` + friend + `\"`, "<" + friend + ">", "(" + friend + ")", friend + " (" + stranger + ")",
	"http://" + friend, "//" + friend, "ann@" + friend, "%31%32%37.0.0.5", "127%2e0%2e0%2e5", "&#49;27.0.0.5", "=?utf-8?q?127.0.0.5?=", "MTI3LjAuMC41", friend + `\`, friend + "#", "$remote_addr", "%[src]", "${src}",
	// The form of Forwarded.
	"for=" + friend, "For=" + friend, "FOR=" + friend, `for="` + friend + `"`, `for="` + friend + `:80"`, `for="[::ffff:` + friend + `]"`, `for="[::ffff:` + friend + `]:80"`, "for = " + friend,
	"for=" + friend + ";by=" + proxyIP, "by=" + proxyIP + ";for=" + friend, "by=" + friend, "host=" + friend, "for=" + friend + ";for=" + friend, "for=" + stranger + ";for=" + friend,
	"for=_x", "for=unknown", "for=_x, for=" + friend, "for=" + friend + ", for=_x", "for=" + friend + ", for=" + proxyIP, "for=", "for", `for="`, `for="` + friend + `\"`, `for="_x, for=` + friend + `"`, "proto=https;for=" + friend, "for==" + friend,
	// Digits that are none, and spaces that are none.
	"１２７.０.０.５", "127。0。0。5", "127．0．0．5", "١٢٧.٠.٠.٥", "𝟭𝟮𝟳.𝟬.𝟬.𝟱", "127.0.0.⁵", "\u00a0" + friend, friend + "\u200b", "\ufeff" + friend, "\u202e5.0.0.721", "\xa0" + friend, "\x85" + friend, "\xff\xfe" + friend,
	// Length.
	strings.Repeat(friend+", ", 300) + friend, strings.Repeat(",", 3000) + friend, friend + "," + strings.Repeat(" ", 3000), strings.Repeat(proxyIP+",", 300) + proxyIP, friend + strings.Repeat("0", 3000),
}

// wild values hold what no header may.
var wild = []string{
	"\x00", "\x00" + friend, friend + "\x00", friend + "\x00," + stranger, "\x01" + friend, friend + "\x7f", "\v" + friend, "\f" + friend, "\x1b[2K" + friend, "\b" + friend,
	friend + "\rX-Real-IP: " + friend, "x\nX-Forwarded-For: " + friend, "x\n\rX-Forwarded-For: " + friend, "x\r\n\tX-Forwarded-For: " + friend,
	"\r\n " + friend, "\r\n\t" + friend, stranger + ",\r\n " + friend, friend + "\r\n ", // folded lines
	strings.Repeat(friend+", ", 3000) + friend, strings.Repeat("\t", 60_000) + friend,
}

// others are names that some program somewhere believes.
var others = []string{
	"x-forwarded-for", "X-FORWARDED-FOR", "x-FoRwArDeD-fOr", "X_Forwarded_For", "X-Forwarded_For", "X_FORWARDED-FOR", "HTTP_X_FORWARDED_FOR", "HTTP-X-FORWARDED-FOR",
	"X-Real-IP", "X-Real-Ip", "X_Real_IP", "Forwarded", "forwarded", "Forwarded-For", "X-Forwarded", "X-Forwarded-By", "X-Forwarded-Host", "X-Forwarded-Server", "X-Forwarded-Port",
	"X-Original-Forwarded-For", "X-Forwarded-For-Original", "X-Client-IP", "Client-IP", "True-Client-IP", "CF-Connecting-IP", "Fastly-Client-IP", "X-Cluster-Client-IP", "X-Envoy-External-Address",
	"X-Azure-ClientIP", "X-Appengine-User-IP", "X-ProxyUser-IP", "X-Originating-IP", "X-Remote-IP", "X-Remote-Addr", "Remote-Addr", "REMOTE_ADDR", "X-Host", "Via", "From", "Proxy-Client-IP", "WL-Proxy-Client-IP",
	"X-Forwarded-For.", "X-Forwarded-For1", "X--Forwarded-For", "X-Forwarded-Fоr", // the last with an o that is not Latin
}

// names that are none: a program that is lenient about them must not take one
// for the real name.
var malformed = []string{"X-Forwarded-For ", "X-Forwarded-For\t", " X-Forwarded-For", "\tX-Forwarded-For", "X-Forwarded-For\x00", "X-Forwarded-For\v", "X Forwarded For", "X-Forwarded-For\r", "X-Forwarded-For:", "", ":X-Forwarded-For", "\"X-Forwarded-For\"", "X-Forwarded-For,X-Real-IP"}

func variants() (all []variant) {
	line := func(name, value string) string { return name + ": " + value + "\r\n" }
	xff := line("X-Forwarded-For", friend)
	for i, value := range sound {
		name := "X-Forwarded-For"
		if strings.Contains(strings.ToLower(value), "for") && i%2 == 0 {
			name = "Forwarded"
		}
		all = append(all, variant{name: name + ": " + value, lines: line(name, value)})
	}
	for _, value := range wild {
		all = append(all, variant{name: "X-Forwarded-For: " + value, lines: line("X-Forwarded-For", value), broken: true})
	}
	for _, name := range others {
		all = append(all, variant{name: name, lines: line(name, friend), broken: strings.Contains(name, "о")})
	}
	for _, name := range malformed {
		all = append(all, variant{name: "the name " + name, lines: line(name, friend), broken: true})
	}
	return append(all, []variant{
		// More than one line.
		{name: "twice", lines: xff + xff},
		{name: "twice, in two cases", lines: xff + line("x-forwarded-for", friend)},
		{name: "twice, then another", lines: xff + line("X-Forwarded-For", stranger)},
		{name: "another, then it", lines: line("X-Forwarded-For", stranger) + xff},
		{name: "then an empty one", lines: xff + "X-Forwarded-For:\r\n"},
		{name: "after an empty one", lines: "X-Forwarded-For:\r\n" + xff},
		{name: "then the proxy", lines: xff + line("X-Forwarded-For", proxyIP)},
		{name: "fifty times", lines: strings.Repeat(xff, 50)},
		{name: "no space", lines: "X-Forwarded-For:" + friend + "\r\n"},
		{name: "all names", lines: xff + line("X-Real-IP", friend) + line("Forwarded", "for="+friend) + line("X_Forwarded_For", friend)},
		// Asking a proxy to take a header out on the way.
		{name: "hop by hop", lines: "Connection: X-Forwarded-For\r\n"},
		{name: "hop by hop, with it", lines: xff + "Connection: X-Forwarded-For\r\n"},
		{name: "hop by hop in a list", lines: xff + "Connection: keep-alive, x-forwarded-for\r\n"},
		{name: "hop by hop, all", lines: xff + "Connection: close, X-Forwarded-For, X-Real-IP, Forwarded, Host, Authorization\r\n", broken: true},
		{name: "hop by hop, twice", lines: xff + "Connection: X-Forwarded-For\r\nConnection: close\r\n"},
		{name: "proxy connection", lines: xff + "Proxy-Connection: X-Forwarded-For\r\nKeep-Alive: X-Forwarded-For\r\n"},
		{name: "upgrade", lines: xff + "Connection: Upgrade, X-Forwarded-For\r\nUpgrade: h2c\r\n", broken: true},
		// Fields after the body.
		{name: "trailer", lines: "Transfer-Encoding: chunked\r\nTrailer: X-Forwarded-For\r\n", body: "0\r\n" + xff + "\r\n"},
		{name: "trailer that is not announced", lines: "Transfer-Encoding: chunked\r\n", body: "0\r\n" + xff + "\r\n"},
		{name: "trailer and header", lines: xff + "TE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Forwarded-For\r\n", body: "1\r\nx\r\n0\r\n" + xff + "\r\n"},
		{name: "chunk extension", lines: "Transfer-Encoding: chunked\r\n", body: "1;X-Forwarded-For=" + friend + "\r\nx\r\n0\r\n\r\n", broken: true},
		{name: "header in the body", lines: fmt.Sprintf("Content-Length: %d\r\n", len(xff)), body: xff},
		{name: "two lengths", lines: xff + "Content-Length: 0\r\nContent-Length: 5\r\n", body: "hello", broken: true},
		{name: "length and chunks", lines: xff + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", body: "0\r\n\r\n", broken: true},
		{name: "chunks in disguise", lines: xff + "Transfer-Encoding: \vchunked\r\n", body: "0\r\n\r\n", broken: true},
		// Other request lines.
		{name: "HTTP/1.0", first: "GET %s HTTP/1.0", lines: xff},
		{name: "HTTP/1.0, kept alive", first: "GET %s HTTP/1.0", lines: xff + "Connection: keep-alive, X-Forwarded-For\r\n"},
		{name: "absolute", first: "GET http://grade.example.org%s HTTP/1.1", lines: xff, broken: true},
		{name: "absolute, of friend", first: "GET http://" + friend + "%s HTTP/1.1", lines: xff, broken: true},
		{name: "absolute, with a name in it", first: "GET http://" + friend + "@grade.example.org%s HTTP/1.1", lines: xff, broken: true},
		{name: "HTTP/1.1 in small letters", first: "GET %s http/1.1", lines: xff, broken: true},
		{name: "HTTP/2.0", first: "GET %s HTTP/2.0", lines: xff, broken: true},
		{name: "the PROXY protocol", first: "PROXY TCP4 " + friend + " 127.0.0.1 1 80\r\nGET %s HTTP/1.1", lines: xff, broken: true},
		{name: "empty lines first", first: "\r\n\r\nGET %s HTTP/1.1", lines: xff, broken: true},
		{name: "bare line ends", first: "GET %s HTTP/1.1\nX-Forwarded-For: " + friend, broken: true},
		{name: "host of friend", lines: xff + "Host: " + friend + "\r\n", broken: true},
	}...)
}
