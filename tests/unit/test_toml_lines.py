"""Each key of a TOML document, with the line on which it begins."""

from __future__ import annotations

import tomllib

import pytest

from service.toml_lines import key_lines

# After "#!" stand the paths that begin on the line.
LINES = r"""
# a = 1
a = '# b = 2'                   #! a
1.2 = 1.5e+3                    #! 1 1/2
-_ = { a = "", b = '''''' }      #! -_ -_/a -_/b
times = 1979-05-27 07:32:00.5Z  #! times
[a1.b]                          #! a1 a1/b
c.d = true                      #! a1/b/c a1/b/c/d
[ "q.r" . 's t' ]               #! q.r q.r/s~t
"e\u0041\"[" = 1                #! q.r/s~t/eA"[
[a1]
e = []                          #! a1/e
[[f]]                           #! f
[[f]]
basic = @@@                     #! f/basic
[x]
i = 1 \@@@ j = 2
"" k = 3@@@""
literal = '''                   #! f/literal
[y]
'' l = 1'''''
m = [                           #! f/m
  1, # [                        #! f/m/0
  [2,                           #! f/m/1 f/m/1/0
   3], {n = 4, o.p = [          #! f/m/1/1 f/m/2 f/m/2/n f/m/2/o f/m/2/o/p
   "]",                         #! f/m/2/o/p/0
  ] },
]
last = "#! f"                   #! f/last
""".replace("@", '"')


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_key_lines(newline: str) -> None:
    expected = {
        tuple(path.replace("~", " ").split("/")): number
        for number, line in enumerate(LINES.splitlines(), 1)
        for path in (line.split(" #! ")[1:] or [""])[-1].split()
    }
    text = LINES.replace("\n", newline)
    assert tomllib.loads(text)["f"][-1]["last"] == "#! f"
    assert key_lines(text) == expected
