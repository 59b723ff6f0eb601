# ruff: noqa: RUF001 - look-alikes are the subject
"""Addresses and URLs that a free relay must not go to, and some that it may.

``{port}`` in a URL stands for the port of a listener on loopback (``str.replace``; no other braces
are meant), so that a test can see that nobody connects to it however the URL is read.
"""

from __future__ import annotations

# Addresses as getaddrinfo gives them, by what a refusal has to speak of; and what are none.
_REFUSED = {
    "RFC 1122": """
        0.0.0.0 0.0.0.1 0.255.255.255 127.0.0.0 127.0.0.1 127.0.0.53 127.1.2.3 127.255.255.255
    """,
    "RFC 1918": """
        10.0.0.0 10.0.0.1 10.96.0.1 10.255.255.255 172.16.0.0 172.17.0.1 172.31.255.255 192.168.0.0
        192.168.1.1 192.168.255.255
    """,
    "RFC 6598": "100.64.0.0 100.100.100.200 100.127.255.255",
    "Azure": "168.63.129.16",
    "RFC 3927": """
        169.254.0.0 169.254.0.23 169.254.169.123 169.254.169.253 169.254.169.254 169.254.170.2
        169.254.255.255
    """,
    "RFC 6890": "192.0.0.0 192.0.0.8 192.0.0.9 192.0.0.10 192.0.0.170 192.0.0.192 192.0.0.255",
    "RFC 5737": """
        192.0.2.0 192.0.2.1 192.0.2.255 198.51.100.0 198.51.100.7 198.51.100.255 203.0.113.0
        203.0.113.9 203.0.113.255
    """,
    "RFC 7526": "192.88.99.0 192.88.99.1 192.88.99.255",
    "RFC 2544": "198.18.0.0 198.18.0.1 198.19.255.255",
    "multicast": """
        224.0.0.0 224.0.0.1 224.0.0.251 232.0.0.1 239.255.255.250 239.255.255.255 ff00:: ff01::1
        ff02::1 ff02::fb ff0e::1 ff02::1%2 ff3e::1 ffff::1
    """,
    "reserved": "240.0.0.0 250.1.2.3 255.255.255.254",
    "broadcast": "255.255.255.255",
    "unspecified": "::",
    "loopback": "::1 0:0:0:0:0:0:0:1 ::1%lo",
    "IPv4-compatible": "::2 ::127.0.0.1 ::7f00:1 ::a00:1 ::8.8.8.8 ::ffff ::169.254.169.254",
    "IPv4-mapped": """
        ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::FFFF:192.168.0.1
        ::ffff:0.0.0.0 ::ffff:8.8.8.8 0:0:0:0:0:ffff:7f00:1
    """,
    "IPv4-translated": "::ffff:0:127.0.0.1 ::ffff:0:a00:1",
    "RFC 6052": """
        64:ff9b::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b::10.0.0.1 64:ff9b::8.8.8.8
        64:ff9b:: 64:ff9b::c0a8:101
    """,
    "RFC 8215": "64:ff9b:1:: 64:ff9b:1::127.0.0.1 64:ff9b:1:7f00:0:100:: 64:ff9b:1:ffff::a00:1",
    "RFC 6666": "100:: 100::1 100::ffff:ffff:ffff:ffff",
    "RFC 9780": "100:0:0:1:: 100:0:0:1::1",
    "NSAP": "200::1 3ff:ffff::1",
    "2000::/3": """
        100:0:0:2::1 400::1 1fff::1 4000::1 64:ff9a::1 64:ff9b:0:1::1 64:ff9b:2::7f00:1 8000::1
        e000::1 fbff::1 fe00::1
    """,
    "Teredo": """
        2001:: 2001::1 2001:0:7f00:1:: 2001:0:4136:e378:8000:63bf:80ff:fffe
        2001:0:a00:1:0:0:f5ff:fffe 2001:0:ffff::
    """,
    "RFC 2928": "2001:1::1 2001:1::2 2001:1::3 2001:3::1 2001:4:112::1 2001:5::1 2001:1ff:ffff::1",
    "RFC 5180": "2001:2:: 2001:2:0:ffff::1",
    "ORCHID": "2001:10::1 2001:1f:ffff::1 2001:20::1 2001:2f:ffff::1",
    "DRIP": "2001:30::1 2001:3f:ffff::1",
    "RFC 3849": "2001:db8:: 2001:db8::1 2001:db8:ffff::1",
    "6to4": """
        2002:: 2002:7f00:1:: 2002:7f00:1::1 2002:a00:1::1 2002:a9fe:a9fe:: 2002:c0a8:101::1
        2002:808:808::1 2002:ffff:ffff::
    """,
    "6bone": "3ffe::1 3ffe:ffff::1",
    "RFC 9637": "3fff:: 3fff::1 3fff:fff:ffff::1",
    "SRv6": "5f00::1 5f00:ffff::1",
    "unique local": "fc00:: fc00::1 fd00::1 fdff:ffff::1 fd00:ec2::254 fd20:ce::254 fd00:42::42",
    "link-local": """
        fe80:: fe80::1 fe80::1%1 fe80::1%eth0 fe80::5efe:10.0.0.1 fe80::a9fe:a9fe febf:ffff::1
        fe90::1%eth0
    """,
    "site-local": "fec0:: fec0::1 fec0::ffff feff:ffff::1",
    "ISATAP": """
        2a00:1450::5efe:127.0.0.1 2a00:1450::5efe:a00:1 2606:4700:1:2:0:5efe:c0a8:101
        2a00::200:5efe:7f00:1 2606:4700:1:2:200:5efe:a9fe:a9fe 2a00:1450::100:5efe:10.0.0.1
        2a00::300:5efe:8.8.8.8
    """,
    "zone": "2606:4700:4700::1111%1 2a00:1450::1%eth0",
    "no IP address": """
        localhost example.com 8.8.8 8.8.8.8. 2130706433 0x7f.1 0177.0.0.1 127.1 08.8.8.8 8.8.8.8/32
        [::1] ::1% 8.8.8.8%eth0 ８.8.8.8 8.8.8.256 8.8.8.8\x00 2606:4700::1::1 2606:4700::g
    """,
}
REFUSED_ADDRESSES: tuple[tuple[str, str], ...] = (
    *((address, why) for why, addresses in _REFUSED.items() for address in addresses.split()),
    *((text, "no IP address") for text in ("", " ", "8.8.8.8 ", " 8.8.8.8", "8.8.8.8\n")),
)

# Among them both sides of every IPv4 range above, and of those in global unicast.
_PUBLIC = """
    1.0.0.0 1.1.1.1 8.8.8.8 9.9.9.9 9.255.255.255 11.0.0.0 52.95.110.1 100.63.255.255 100.128.0.0
    126.255.255.255 128.0.0.0 140.82.121.4 168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0
    172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.1.255 192.0.3.0 192.88.98.255
    192.88.100.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0
    203.0.112.255 203.0.114.0 223.255.255.255 2000::1 2001:200:: 2001:200::1 2001:4860:4860::8888
    2001:67c:2e8:22::c100:68b 2001:db7:ffff:ffff::1 2001:db9::1 2001:ffff::1 2003::1
    2400:cb00:2048:1::1 2606:4700:4700::1111 2606:2800:220:1:248:1893:25c8:1946 2620:fe::fe
    2a00:1450:4001:81b::200e 2a04:4e42::81 2c0f:fb50:4003::1 3ffd:ffff::1 2a00:1450::5eff:7f00:1
    2a00:1450::5efe:7f00:0:1 2a00:1450::400:5efe:7f00:1
"""
PUBLIC_ADDRESSES: tuple[str, ...] = tuple(_PUBLIC.split())

# Spellings of loopback, and of what leads there, as the host of a URL.
_LOOPBACK = """
    127.0.0.1 127.0.0.2 127.1 127.0.1 127.127.127.127 127.255.255.254 2130706433 2130706434
    2147483646 0x7f000001 0x7F000001 0X7F000001 0x7fffffff 0x000000007f000001 017700000001
    000017700000001 0017700000001 0177.0.0.1 0177.0.0.01 0177.00.00.01 00000177.0.0.1 0177.1
    0177.0.1 0x7f.0.0.1 0x7F.0.0.1 0x7f.1 0X7F.1 0x7f.0.1 0x7f.0x0.0x0.0x1 0x07f.0x00.0x00.0x001
    0x7f.000.0x0.1 0177.0x0.0.1 127.0x0.00.0x1 127.0x1 127.01 127.0.0x1 127.0.0.0x1 127.0.0.01
    127.00.00.01 127.000.000.001 127.65537 127.0x10001 127.0200001 0x7f.65537 0177.0x010001
    127.0.257 127.0.0x101 127.16777215 0x7f.0xffffff 127.255.65535 0177.0377.0xff.254 0.0.0.0 0 00
    0.0 0.0.0 00000000 0x0 0x00000000 0x0.0x0 00.00.0 0.0.0.1 0.1 1 0x1 01 16777215 [::1]
    [0:0:0:0:0:0:0:1] [0000:0000:0000:0000:0000:0000:0000:0001] [0::1] [::0001] [::0.0.0.1]
    [0:0::0:1] [::] [0:0:0:0:0:0:0:0] [::0] [0::] [::0.0.0.0] [::127.0.0.1] [::7f00:1]
    [::7F00:0001] [::127.255.255.254] [::ffff:127.0.0.1] [::FFFF:127.0.0.1] [::ffff:7f00:1]
    [::ffff:7F00:0001] [0:0:0:0:0:ffff:127.0.0.1] [0000::ffff:7f00:0001] [::ffff:0.0.0.0]
    [::ffff:0:0] [::ffff:0:127.0.0.1] [::ffff:0:7f00:1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1]
    [64:FF9B::7F00:1] [0064:ff9b:0:0:0:0:127.0.0.1] [64:ff9b:1::127.0.0.1]
    [64:ff9b:1:7f00:0:100::] [2002:7f00:1::] [2002:7f00:1::1] [2002:7F00:0001::1]
    [2001:0:7f00:1::] [2001:0:4136:e378:8000:63bf:80ff:fffe] [fe80::5efe:127.0.0.1]
    [2a00:1450::5efe:127.0.0.1] [2a00:1450::200:5efe:7f00:1] [fe80::1] [ff02::1]
"""
# Names of the machine, of the network around it, and of the metadata of clouds.
_LOCAL_NAMES = """
    localhost LOCALHOST LocalHost localhost.localdomain localhost4 localhost6
    localhost4.localdomain4 localhost6.localdomain6 ip6-localhost ip6-loopback ip6-allnodes
    broadcasthost loopback a.localhost a.b.localhost A.LocalHost 127.0.0.1.localhost
    example.com.localhost printer.local a.local mdns.LOCAL intranet router redis postgres
    kubernetes db www wpad _ a_b host.docker.internal gateway.docker.internal
    kubernetes.docker.internal kubernetes.default.svc.cluster.local vault.corp nas.home router.lan
    router.home.arpa home.arpa sso.intranet db.private example.onion localhost.localdomain4
    xn--bcher-kva bücher l\u043ecalhost bücher.local metadata metadata.google.internal
    METADATA.google.internal metadata.goog a.metadata.goog instance-data
    instance-data.ec2.internal rancher-metadata metadata.azure.internal ip-10-0-0-1.ec2.internal
    metadata.oraclecloud.internal
"""
_REFUSED_URLS = """
    http://10.0.0.1/ http://172.16.0.1/ https://192.168.0.1/ http://100.64.0.1/
    http://169.254.169.254/latest/meta-data/ http://2852039166/ http://0xa9fea9fe/
    http://0251.0376.0251.0376/ http://025177524776/ http://169.254.43518/ http://169.16689662/
    http://0xa9.0xfe.0xa9.0xfe/ http://0xA9.254.0251.0xfe/ http://[::ffff:169.254.169.254]/
    http://[::ffff:a9fe:a9fe]/ http://[64:ff9b::a9fe:a9fe]/ http://[2002:a9fe:a9fe::]/
    http://[fd00:ec2::254]/latest/ http://[fd20:ce::254]/ http://169.254.170.2/v2/credentials
    http://169.254.169.123/ http://100.100.100.200/ http://192.0.0.192/opc/v2/
    http://168.63.129.16/machine?comp=goalstate http://0xa83f8110/ http://2822734096/
    http://192.0.2.1/ http://198.18.0.1/ http://198.51.100.1/ http://203.0.113.1/
    http://192.88.99.1/ http://224.0.0.1/ http://240.0.0.1/ http://255.255.255.255/
    http://4294967295/ http://0xffffffff/ http://037777777777/ http://012.0.0.1/ http://0xa.1/
    http://10.1/ http://167772161/ http://192.168.257/ http://0xc0a80101/ http://3232235777/
    http://0300.0250.1.1/ http://172.1048577/ http://[fc00::1]/ http://[fe80::1]/
    http://[fec0::1]/ http://[ff0e::1]/ http://[2001:db8::1]/ http://[3fff::1]/ http://[5f00::1]/
    http://[2001:10::1]/ http://[100::1]/ http://[4000::1]/ http://[2001:2::1]/
    http://[::ffff:8.8.8.8]/ http://[64:ff9b::8.8.8.8]/ http://[2002:808:808::1]/
    http://[::8.8.8.8]/ http://[64:ff9b:1::808:808]/ http://[2606:4700:1:2:0:5efe:808:808]/
    http://example.com:1/ http://example.com:22/ http://example.com:25/ http://example.com:6379/
    https://example.com:5432/ http://example.com:2375/ http://example.com:65535/
    http://8.8.8.8:53/ http://[2606:4700:4700::1111]:53/ http://example.com:8079/x?y#z
    HTTP://127.0.0.1:{port}/ hTTpS://127.0.0.1:{port}/ https://127.0.0.1:{port}/
    http://127.0.0.1:{port} http://127.0.0.1:{port}?x http://127.0.0.1:{port}#x
    http://127.0.0.1:{port}/# http://127.0.0.1:{port}//example.com/ http://[::1]:{port}#x
    http://127.0.0.1:{port}/?u=@example.com http://127.0.0.1:{port}/@example.com
    http://127.0.0.1:{port}/x%00 http://127.0.0.1:{port}/http://example.com/
"""
# Hosts that some parser, some mapping or some C library makes a local one of.
_ODD_HOSTS = """
    localhost. 127.0.0.1. 127.1. 2130706433. 0x7f.1. localhost.. a.localhost. 127..0.0.1
    .127.0.0.1 127.0.0.1.. 127...1 .localhost . .. example.com. １２７.0.0.1 １２７．０．０．１
    127。0。0。1 127｡0｡0｡1 127．0．0．1 127.0。0.1 ２１３０７０６４３３ ０x7f.1 0ｘ7f.1 ①②⑦.0.0.1
    ⑫7.0.0.1 127.0.0.① ①⑫⑦。⓪。⓪。① 𝟏𝟐𝟕.𝟎.𝟎.𝟏 𝟙𝟚𝟟.𝟘.𝟘.𝟙 ¹²⁷.0.0.1 ₁₂₇.0.0.1
    \u0661\u0662\u0667.0.0.1 १२७.0.0.1 ⓛⓞⓒⓐⓛⓗⓞⓢⓣ ｌｏｃａｌｈｏｓｔ ＬＯＣＡＬＨＯＳＴ
    localho\u017ft ℓocalhost 𝓁ocalhost localhost。 lo\xadcalhost local\u200bhost localhost\u200d
    \u2060localhost local\u034fhost \ufefflocalhost localhost\ufeff \u202elocalhost
    127.0.0.1\u200b 127.0.\xad0.1 a.ｌｏｃａｌｈｏｓｔ a.ⓛocalhost router.ｌａｎ
    metadata.google。internal 127.0.0.1｡ %31%32%37.0.0.1 127%2e0%2e0%2e1 127.0.0.1%00
    %6c%6f%63%61%6c%68%6f%73%74 localhost%00 localhost%2e localhost%20 127.0.0.1%2f.example.com
    %5b::1%5d 127.0.0.1%23.example.com example.com%00.localhost localhost%E2%80%8B %EF%BC%91.1
    127.0.0.256 256.0.0.1 127.0.65536 127.16777216 4294967296 4294967297 6425673729 0x17f000001
    040000000001 -127.0.0.1 +127.0.0.1 127.-0.0.1 127.0.0.1.1 127.0.0.0.1 0.0.0.0.0 1.127.0.0.1
    127.0.0.1e0 1e3 0b1 0o177.1 0x 0x.1 0x7f.0x 127.0x 0x7g.1 08 09.1 0178.0.0.1 0127.0.0.1
    127.0.0.08 127,0,0,1 127_0_0_1.1 127.0.0.1_ 127.0.0.1- 127.0.0.1; 127.0.0.1, example.127.0.0.1
    localhost.1 localhost.0x1 a.0 example.com.2130706433 [] [ ] [[::1]] [::1]] [[::1] [::1 ::1]
    ::1 0:0:0:0:0:0:0:1 [::1]x x[::1] [::1].example.com [::1%25lo] [::1%lo] [::1%251] [::1%1]
    [fe80::1%25eth0] [::1%25] [2606:4700:4700::1111%251] [v1.::1] [v7f.localhost] [127.0.0.1]
    [localhost] [2130706433] [0x7f.1] [::127.1] [::ffff:127.1] [::ffff:127.0.0.01]
    [::ffff:0x7f.0.0.1] [::ffff:0177.0.0.1] [::ffff:2130706433] [::ffff:127.0.0.1.] [00000::1]
    [::00001] [:::1] [::1::] [1] [:] [.] [0:0:0:0:0:0:0:0:1] [0:0:0:0:0:0:1] [::1/128] [::g]
    [::１] [：：1] [::①] [::ffff:127。0。0。1] [::1,] [+::1] [-1] [::0x1] [127.0.0.1::]
"""
# URLs that are read in more than one way, or are none.
_ODD_URLS = """
    http:127.0.0.1:{port}/ http:/127.0.0.1:{port}/ http:///127.0.0.1:{port}/
    http:////127.0.0.1:{port}/ http:\\\\127.0.0.1:{port}\\ http:/\\127.0.0.1:{port}/
    http:\\/127.0.0.1:{port}/ http://\\127.0.0.1:{port}/ //127.0.0.1:{port}/ 127.0.0.1:{port}
    127.0.0.1:{port}/ localhost:{port}/ /127.0.0.1:{port}/ ::1 \\\\127.0.0.1:{port}\\x
    ://127.0.0.1:{port}/ :127.0.0.1:{port}/ http http: / /v1/relay?url=http://127.0.0.1:{port}/
    ?url=http://127.0.0.1:{port}/ #http://127.0.0.1:{port}/ http:/ http:// https:// http:///
    http://? http://# http://:{port}/ http://:{port} http://:/ http://?x=127.0.0.1:{port} http://.
    ftp://127.0.0.1:{port}/ file:///etc/passwd file://127.0.0.1:{port}/etc/passwd
    gopher://127.0.0.1:{port}/_GET%20/ dict://127.0.0.1:{port}/info ldap://127.0.0.1:{port}/
    tftp://127.0.0.1:{port}/x sftp://127.0.0.1:{port}/ smb://127.0.0.1:{port}/x
    ws://127.0.0.1:{port}/ wss://127.0.0.1:{port}/ redis://127.0.0.1:{port}/0
    unix:///run/docker.sock http+unix://%2Frun%2Fdocker.sock/info data:text/plain,x
    javascript:alert(1) about:blank blob:http://127.0.0.1:{port}/x php://input
    jar:http://127.0.0.1:{port}/!/x view-source:http://127.0.0.1:{port}/
    url:http://127.0.0.1:{port}/ netdoc:///etc/passwd feed://127.0.0.1:{port}/
    http+https://127.0.0.1:{port}/ httpss://127.0.0.1:{port}/ xhttp://127.0.0.1:{port}/
    http\u017f://127.0.0.1:{port}/ ｈttp://127.0.0.1:{port}/ http：//127.0.0.1:{port}/
    http:／／127.0.0.1:{port}/ ht%74p://127.0.0.1:{port}/ \ufeffhttp://127.0.0.1:{port}/
    http://user@127.0.0.1:{port}/ http://user:pass@127.0.0.1:{port}/ http://@127.0.0.1:{port}/
    http://:@127.0.0.1:{port}/ http://user@example.com/ http://@example.com/ http://@/
    http://:@example.com/ http://a@b@127.0.0.1:{port}/ http://example.com@127.0.0.1:{port}/
    http://example.com:80@127.0.0.1:{port}/ http://127.0.0.1:{port}@example.com/
    http://127.0.0.1:{port}:@example.com/ http://a@127.0.0.1:{port}@example.com/
    http://[::1]:{port}@example.com/ http://example.com@[::1]:{port}/ http://user@
    http://example.com#@127.0.0.1:{port}/ http://example.com?@127.0.0.1:{port}/
    http://example.com;@127.0.0.1:{port}/ http://example.com&@127.0.0.1:{port}/
    http://127.0.0.1:{port}#@example.com/ http://127.0.0.1:{port}?@example.com/
    http://127.0.0.1:{port}&@example.com#@example.org/ http://example.com\\@127.0.0.1:{port}/
    http://127.0.0.1:{port}\\@example.com/ http://127.0.0.1:{port}\\.example.com/
    http://127.0.0.1:{port}%40example.com/ http://example.com%40127.0.0.1:{port}/
    http://example.com＠127.0.0.1:{port}/ http://example.com﹫127.0.0.1:{port}/
    http://example.com＃@127.0.0.1:{port}/ http://127.0.0.1＃.example.com:{port}/
    http://127.0.0.1／.example.com:{port}/ http://127.0.0.1\u2044.example.com:{port}/
    http://127.0.0.1：{port}/ http://127.0.0.1？.example.com:{port}/
    http://127.0.0.1：{port}.example.com/ http://example.com℀.example.org:{port}/
    http://127.0.0.1⒈.example.com:{port}/ http://[::1]。:{port}/ \x00http://127.0.0.1:{port}/
    http://127.0.0.1:{port}/\x00 http://127.0.0.1\x00.example.com:{port}/
    http://example.com\x00@127.0.0.1:{port}/ http://127.0.0.1\x7f:{port}/
    <http://127.0.0.1:{port}/> http://example.com/\x00 http://example.com/\\..\\x
    http://example.com/a\\b http://example.com/?q=\\ http://example.com/% http://example.com/%2
    http://example.com/%zz http://example.com/%u0041 http://example.com/?q=%
    http://example.com/?q=100% http://example.com/#%x http://example.com/%％41
    http://example.com/.. http://example.com/../x http://example.com/. http://example.com/a/./b
    http://example.com/a/.. http://example.com/%2e%2e/x http://example.com/.%2E/x
    http://example.com/%2e http://example.com/a/%2E./b?x http://example.com/..#x
    http://127.0.0.1:0/ http://127.0.0.1:/ http://127.0.0.1: http://127.0.0.1:{port}:/
    http://127.0.0.1:{port}:80/ http://127.0.0.1:80:{port}/ http://127.0.0.1:0{port}/
    http://127.0.0.1:+{port}/ http://127.0.0.1:-{port}/ http://127.0.0.1:{port}./
    http://127.0.0.1:{port}a/ http://127.0.0.1:a{port}/ http://127.0.0.1:{port},80/
    http://127.0.0.1:%38%30/ http://[::1]:0{port}/ http://[::1]{port}/ http://[::1]:/
    http://example.com:0/ http://example.com:/ http://example.com:00080/ http://example.com:65536/
    http://example.com:65616/ http://example.com:99999/ http://example.com:100000/
    http://example.com:４４３/ http://example.com:\u0668\u0660/ http://example.com:0x50/
    http://example.com:8_0/ http://example.com:1e2/ http://example.com:80.0/
    http://example.com:-1/ http://example.com:²/ http://example.com:http/
    http://example.com:80:80/ http://example.com::80/ http://exam!ple.com/ http://exam$ple.com/
    http://exam&ple.com/ http://exam'ple.com/ http://exam"ple.com/ http://(example).com/
    http://*.example.com/ http://exam+ple.com/ http://exam=ple.com/ http://exam;ple.com/
    http://exam~ple.com/ http://exam<ple>.com/ http://exam^ple.com/ http://exam`ple.com/
    http://exam|ple.com/ http://-example.com/ http://example-.com/ http://example.-com/
    http://example..com/ http://.example.com/ http://example.com../ http://☃.example.com/
    http://💩.example.com/ http://i❤.example.com/ http://xn--i-7iq.ws/ http://BÜCHER.example.com/
    http://İ.example.com/ http://\u212a.example.com/ http://Ⅷ.example.com/ http://ﬁ.example.com/
    http://㎏.example.com/ http://℡.example.com/ http://cafe\u0301.example.com/
    http://\u0301a.example.com/ http://a\u200db.example.com/ http://a·b.example.com/
    http://\u05d0a.example.com/ http://éa--b-.example.com/ http://xn--.example.com/
    http://xn--a.example.com/ http://xn--localhost-.example.com/ http://xn--127-.0.0.1/
    http://xn---bbk.example.com/ http://xn--bcher-kv.example.com/ http://xn--ü.example.com/
    http://bücher.my_bucket.example.com/ http://a。b.com/
    http://xn--bcher-kva.my_bucket.example.com/ http://example．com/ http://example｡com/
    http://0x08080808/ http://134744072/ http://010.8.8.8/ http://8.8.2056/ http://8.526344/
    http://0x8.0x8.0x8.0x8/ http://08.8.8.8/ http://8.8.8.008/ http://8.8.8.8./ http://８.8.8.8/
"""
# Spaces, controls, and what is too long.
_BROKEN_URLS = (
    *("", " ", "http://127.0.0.1:{port}\r\nHost: x", "http://127.0.0.1\r\n:{port}/"),
    *("http://127.0.0.1\t:{port}/", "http://127.0.0.\n1:{port}/", "http://127.0.0.1:\t{port}/"),
    *("ht\ntp://127.0.0.1:{port}/", "http:\t//127.0.0.1:{port}/", "http:/\n/127.0.0.1:{port}/"),
    *(" http://127.0.0.1:{port}/", "\thttp://127.0.0.1:{port}/", "\x1fhttp://127.0.0.1:{port}/"),
    *("http://127.0.0.1:{port}/ ", "http://127.0.0.1:{port}/\n"),
    *("http://127.0.0.1 .example.com:{port}/", "http://127.0.0.1:{port} @example.com/"),
    *("http://example.com 127.0.0.1:{port}/", "http://127.0.0.1\xa0:{port}/"),
    *("http:// 127.0.0.1:{port}/", "http://127.0.0.1\u3000:{port}/"),
    *("http://127.0.0.1\u2028:{port}/", "http://127.0.0.1\x85:{port}/"),
    *("http://127.0.0.1\x0b:{port}/", "http://127.0.0.1\x1c:{port}/", "http ://127.0.0.1:{port}/"),
    *("http://example.com/\r\nX-Injected: 1", "http://example.com/\nx", "http://example.com/\tx"),
    *("http://example.com/a b", "http://example.com/?q=\r\nx: y", "http://example.com/#\r\nx"),
    *("http://example.com/\u2028", "http://example.com/\u3000x", "http://example.com/\x85"),
    *("http://example.com/\x7f", "http://example.com/\x80", "http://example.com/?\x9f"),
    "http://exa mple.com/",
    *(f"http://{'a' * 64}.com/", f"http://{'a.' * 126}com/", f"http://{'é' * 60}.com/"),
    *(f"http://{'é.' * 90}com/", f"http://{'a' * 8_000}", f"http://example.com/{'a' * 7_982}"),
    *(f"http://example.com/{'é' * 1_400}", f"http://example.com/#{'a' * 8_000}"),
    f"http://127.0.0.1:{{port}}/{'a' * 8_000}",
)
REFUSED_URLS: tuple[tuple[str, str], ...] = (
    *((f"http://{host}:{{port}}/", "refused") for host in (_LOOPBACK + _LOCAL_NAMES).split()),
    *((url, "refused") for url in _REFUSED_URLS.split()),
    *((f"http://{host}:{{port}}/", "invalid") for host in _ODD_HOSTS.split()),
    *((url, "invalid") for url in (*_ODD_URLS.split(), *_BROKEN_URLS)),
)

# A URL, and the host, the port and the URL that are read from it.
GOOD_URLS: tuple[tuple[str, str, int, str], ...] = (
    ("http://example.com", "example.com", 80, "http://example.com/"),
    ("https://example.com/", "example.com", 443, "https://example.com/"),
    ("HTTPS://EXAMPLE.Com/Path", "example.com", 443, "https://example.com/Path"),
    ("http://example.com:80/", "example.com", 80, "http://example.com/"),
    ("https://example.com:443/", "example.com", 443, "https://example.com/"),
    ("http://example.com:443/", "example.com", 443, "http://example.com:443/"),
    ("https://example.com:80/", "example.com", 80, "https://example.com:80/"),
    ("http://example.com?x=1", "example.com", 80, "http://example.com/?x=1"),
    ("http://example.com?", "example.com", 80, "http://example.com/?"),
    ("http://example.com#x", "example.com", 80, "http://example.com/"),
    ("http://example.com/a#b?c#d@e", "example.com", 80, "http://example.com/a"),
    ("http://example.com/?a=b?c#d", "example.com", 80, "http://example.com/?a=b?c"),
    ("http://example.com/@user", "example.com", 80, "http://example.com/@user"),
    ("http://example.com/?m=a@b.c", "example.com", 80, "http://example.com/?m=a@b.c"),
    ("http://example.com//a//b", "example.com", 80, "http://example.com//a//b"),
    ("http://example.com/a:b", "example.com", 80, "http://example.com/a:b"),
    ("http://example.com/.a/..b/c..", "example.com", 80, "http://example.com/.a/..b/c.."),
    ("http://example.com/...", "example.com", 80, "http://example.com/..."),
    ("http://example.com/?p=../x", "example.com", 80, "http://example.com/?p=../x"),
    ("http://example.com/%2F%5c%00", "example.com", 80, "http://example.com/%2F%5c%00"),
    ("http://example.com/é?ü=ß", "example.com", 80, "http://example.com/%C3%A9?%C3%BC=%C3%9F"),
    ("http://example.com/\u200b", "example.com", 80, "http://example.com/%E2%80%8B"),
    ("http://example.com/{a}|^", "example.com", 80, "http://example.com/%7Ba%7D%7C%5E"),
    ("http://example.com/?f[a]=<b>", "example.com", 80, "http://example.com/?f[a]=%3Cb%3E"),
    ("http://example.com/;a=1,2!*'()", "example.com", 80, "http://example.com/;a=1,2!*'()"),
    ("http://bücher.example/", "xn--bcher-kva.example", 80, "http://xn--bcher-kva.example/"),
    ("http://Bücher.EXAMPLE/", "xn--bcher-kva.example", 80, "http://xn--bcher-kva.example/"),
    ("http://XN--BCHER-KVA.example/", "xn--bcher-kva.example", 80, "http://xn--bcher-kva.example/"),
    ("http://straße.example/", "xn--strae-oqa.example", 80, "http://xn--strae-oqa.example/"),
    ("http://例え.テスト/", "xn--r8jz45g.xn--zckzah", 80, "http://xn--r8jz45g.xn--zckzah/"),
    ("http://127.0.0.१/", "127.0.0.xn--e4b", 80, "http://127.0.0.xn--e4b/"),  # a name, to DNS
    ("http://my_bucket.example/", "my_bucket.example", 80, "http://my_bucket.example/"),
    ("http://r3---sn-x.example/", "r3---sn-x.example", 80, "http://r3---sn-x.example/"),
    ("http://1.example/", "1.example", 80, "http://1.example/"),
    ("http://0x7f.example/", "0x7f.example", 80, "http://0x7f.example/"),
    ("http://127.0.0.1.nip.io/", "127.0.0.1.nip.io", 80, "http://127.0.0.1.nip.io/"),
    ("http://localhost.example/", "localhost.example", 80, "http://localhost.example/"),
    ("http://notlocalhost.example/", "notlocalhost.example", 80, "http://notlocalhost.example/"),
    ("http://notahome.arpa/", "notahome.arpa", 80, "http://notahome.arpa/"),
    ("http://xlocal.com/", "xlocal.com", 80, "http://xlocal.com/"),
    (f"http://{'a' * 63}.example/", f"{'a' * 63}.example", 80, f"http://{'a' * 63}.example/"),
    ("http://8.8.8.8/", "8.8.8.8", 80, "http://8.8.8.8/"),
    ("https://1.1.1.1:443", "1.1.1.1", 443, "https://1.1.1.1/"),
    ("http://[2606:4700::1111]", "2606:4700::1111", 80, "http://[2606:4700::1111]/"),
    ("http://[2A00:1450:0:0::1]:443/", "2a00:1450::1", 443, "http://[2a00:1450::1]:443/"),
    ("http://[2620:fe::0.0.0.254]/", "2620:fe::fe", 80, "http://[2620:fe::fe]/"),
)
