// The language, against what Jinja2 (sandboxed, trim_blocks, lstrip_blocks, json.dumps as tojson)
// renders.
#include <doctest/doctest.h>

#include <string>

#include "base/json.h"
#include "text/chat_template.h"

namespace edgewise {
namespace {

struct Snippet {
  std::string source;
  const char* text;
};

const char* const kContext =
    R"x({"s": "Hello World", "u": "  xin chào Việt Nam \n", "n": 7, "f": 2.5, "l": [3, 1, 2], "d": {"b": 1, "a": 2, "items": 5}, "e": "", "z": [], "t": true, "nn": null, "msgs": [{"role": "user", "content": "hi", "n": 2}, {"role": "assistant", "content": "yo", "n": 1}], "w": ["b", "A", "a", "c"], "big": [1, 2, 3, 4, 5, 6, 7]})x";

// clang-format off
const Snippet kSnippets[] = {
    {R"({{ s }}|{{ n }}|{{ f }}|{{ l }}|{{ d }}|{{ t }}|{{ nn }}|{{ missing }})",
     R"(Hello World|7|2.5|[3, 1, 2]|{'b': 1, 'a': 2, 'items': 5}|True|None|)"},
    {R"({{ s|upper }}{{ s|lower }}{{ s|title }}{{ 'foo-bar (baz) o\'neil'|title }}{{ 'foo-bar o\'neil'.title() }}{{ 'hELLO wOrld'|capitalize }})",
     R"(HELLO WORLDhello worldHello WorldFoo-Bar (Baz) O'neilFoo-Bar O'NeilHello world)"},
    {R"({{ u|trim }}|{{ u.strip() }}|{{ u.lstrip() }}|{{ u.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'xxaxx'|trim('x') }})",
     "xin chào Việt Nam|xin chào Việt Nam|xin chào Việt Nam \n|  xin chào Việt Nam|a|a"},
    {R"({{ u|upper }}{{ u|length }}{{ s|length }}{{ l|length }}{{ d|count }}{{ missing|length }})",
     "  XIN CHÀO VIỆT NAM \n2111330"},
    {R"({{ l|join(',') }}{{ l|join }}{{ msgs|join(';',attribute='role') }}{{ ','.join(w) }})",
     R"(3,1,2312user;assistantb,A,a,c)"},
    {R"({{ missing|default('x') }}{{ e|default('x') }}{{ e|default('x',true) }}{{ nn|d('q', boolean=True) }})",
     R"(xxq)"},
    {R"({{ s|replace('l','L') }}{{ s|replace('l','L',1) }}{{ s.replace('o','0',1) }}{{ 'abc'|replace('','-') }}{{ 'abc'.replace('','-',2) }})",
     R"(HeLLo WorLdHeLlo WorldHell0 World-a-b-c--a-bc)"},
    {R"({{ l|first }}{{ l|last }}{{ s|first }}{{ s|last }}{{ z|first }}{{ l|list }}{{ s|list }}{{ d|list }})",
     R"(32Hd[3, 1, 2]['H', 'e', 'l', 'l', 'o', ' ', 'W', 'o', 'r', 'l', 'd']['b', 'a', 'items'])"},
    {R"({{ d|items|list }}{{ d.items()|list }}{{ d|dictsort }}{{ d|dictsort(by='value') }}{{ d|dictsort(reverse=true) }})",
     R"([('b', 1), ('a', 2), ('items', 5)][('b', 1), ('a', 2), ('items', 5)][('a', 2), ('b', 1), ('items', 5)][('b', 1), ('a', 2), ('items', 5)][('items', 5), ('b', 1), ('a', 2)])"},
    {R"({{ d['items'] }}{{ d.b }}{{ d['b'] }}{{ d.get('zz') }}{{ d.get('zz',4) }}{{ d.keys()|list }}{{ d.values()|list }})",
     R"(511None4['b', 'a', 'items'][1, 2, 5])"},
    {R"({{ l|sort }}{{ w|sort }}{{ w|sort(reverse=true) }}{{ w|sort(case_sensitive=true) }}{{ msgs|sort(attribute='n')|map(attribute='role')|list }})",
     R"([1, 2, 3]['A', 'a', 'b', 'c']['c', 'b', 'A', 'a']['A', 'a', 'b', 'c']['assistant', 'user'])"},
    {R"({{ w|unique|list }}{{ w|unique(case_sensitive=true)|list }}{{ l|reverse|list }}{{ s|reverse }})",
     R"(['b', 'A', 'c']['b', 'A', 'a', 'c'][2, 1, 3]dlroW olleH)"},
    {R"({{ msgs|map(attribute='role')|list }}{{ w|map('upper')|list }}{{ msgs|map(attribute='zzz',default='D')|list }}{{ w|map('replace','a','Q')|list }})",
     R"(['user', 'assistant']['B', 'A', 'A', 'C']['D', 'D']['b', 'A', 'Q', 'c'])"},
    {R"({{ msgs|selectattr('role','equalto','user')|list }}{{ msgs|rejectattr('role','eq','user')|map(attribute='content')|join }})",
     R"([{'role': 'user', 'content': 'hi', 'n': 2}]yo)"},
    {R"({{ l|select('odd')|list }}{{ l|reject('odd')|list }}{{ l|select('>',1)|list }}{{ [0,1,2]|select|list }}{{ msgs|selectattr('n')|list|length }})",
     R"([3, 1][2][3, 2][1, 2]2)"},
    {R"({{ l|sum }}{{ msgs|sum(attribute='n') }}{{ l|sum(start=10) }}{{ l|min }}{{ l|max }}{{ w|max }}{{ msgs|max(attribute='n') }})",
     R"(631613c{'role': 'user', 'content': 'hi', 'n': 2})"},
    {R"({{ big|batch(3)|list }}{{ big|batch(3,'x')|list }}{{ big|slice(3)|list }}{{ big|slice(3,'x')|list }})",
     R"([[1, 2, 3], [4, 5, 6], [7]][[1, 2, 3], [4, 5, 6], [7, 'x', 'x']][[1, 2, 3], [4, 5], [6, 7]][[1, 2, 3], [4, 5, 'x'], [6, 7, 'x']])"},
    {R"({{ 3.7|int }}{{ '42'|int }}{{ 'x'|int }}{{ 'x'|int(5) }}{{ '3.9'|int }}{{ '3.5'|float }}{{ 'q'|float }}{{ 'q'|float(1.5) }}{{ -5|abs }}{{ (-5)|abs }})",
     R"(3420533.50.01.555)"},
    {R"({{ 42.55|round }}{{ 42.55|round(1) }}{{ 42.55|round(1,'floor') }}{{ 42.51|round(1,'ceil') }}{{ 2.5|round }}{{ 3|round }}{{ 1e3 }}{{ 1e20 }}{{ 0.00001 }}{{ 100000.0 }})",
     R"(43.042.542.542.62.031000.01e+201e-05100000.0)"},
    {R"({{ '<a href="x">\'&'|escape }}{{ s|safe }}{{ s|e }})",
     R"(&lt;a href=&#34;x&#34;&gt;&#39;&amp;Hello WorldHello World)"},
    {R"({{ 'a\nb\n\nc'|indent }}|{{ 'a\nb\n\nc'|indent(2,true) }}|{{ 'a\nb\n\nc'|indent(width=3,blank=true) }}|{{ 'a\nb\n'|indent('>>') }})",
     "a\n    b\n\n    c|  a\n  b\n\n  c|a\n   b\n   \n   c|a\n>>b\n"},
    {R"({{ d|tojson }}{{ msgs|tojson(indent=2) }}{{ u|tojson }}{{ u|tojson(ensure_ascii=true) }}{{ d|tojson(separators=(',',':')) }}{{ d|tojson(sort_keys=true) }}{{ [] |tojson(indent=2) }}{{ {}|tojson(indent=4) }})",
     "{\"b\": 1, \"a\": 2, \"items\": 5}[\n  {\n    \"role\": \"user\",\n    \"content\": \"hi\",\n    \"n\": 2\n  },\n  {\n    \"role\": \"assistant\",\n    \"content\": \"yo\",\n    \"n\": 1\n  }\n]\"  xin chào Việt Nam \\n\"\"  xin ch\\u00e0o Vi\\u1ec7t Nam \\n\"{\"b\":1,\"a\":2,\"items\":5}{\"a\": 2, \"b\": 1, \"items\": 5}[]{}"},
    {R"({{ [1,2.0,none,true,"q\"\\\n\t"]|tojson }}{{ [1,[2,{'a':[]}]]|tojson(indent=1) }}{{ d|tojson(indent=0) }})",
     "[1, 2.0, null, true, \"q\\\"\\\\\\n\\t\"][\n 1,\n [\n  2,\n  {\n   \"a\": []\n  }\n ]\n]{\n\"b\": 1,\n\"a\": 2,\n\"items\": 5\n}"},
    {R"({{ n is defined }}{{ missing is defined }}{{ missing is undefined }}{{ nn is none }}{{ s is string }}{{ n is number }}{{ t is number }}{{ t is integer }}{{ n is integer }}{{ f is float }}{{ t is boolean }})",
     R"(TrueFalseTrueTrueTrueTrueTrueFalseTrueTrueTrue)"},
    {R"({{ d is mapping }}{{ l is mapping }}{{ s is iterable }}{{ l is iterable }}{{ n is iterable }}{{ d is iterable }}{{ s is sequence }}{{ d is sequence }}{{ n is sequence }}{{ missing is iterable }}{{ missing is sequence }}{{ range is callable }}{{ s is callable }})",
     R"(TrueFalseTrueTrueFalseTrueTrueTrueFalseTrueTrueTrueFalse)"},
    {R"({{ t is true }}{{ n is true }}{{ (1 == 1) is true }}{{ false is false }}{{ 3 is odd }}{{ 3 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }})",
     R"(TrueFalseTrueTrueTrueFalseTrueFalse)"},
    {R"({{ 1 is eq 1 }}{{ 1 is equalto(2) }}{{ 1 is ne 2 }}{{ 1 is lt 2 }}{{ 1 is gt 2 }}{{ 2 is ge 2 }}{{ 2 is le 1 }}{{ 1 is in [1,2] }}{{ 1 is not in [1,2] }}{{ 'ab' is lower }}{{ 'AB' is upper }}{{ '' is lower }})",
     R"(TrueFalseTrueTrueFalseTrueFalseTrueFalseTrueTrueFalse)"},
    {R"({{ n is not defined }}{{ not n is defined }}{{ missing is not none }}{{ 1 is sameas 1 }}{{ true is sameas 1 }})",
     R"(FalseFalseTrueTrueFalse)"},
    {R"({{ 7 // 2 }}{{ -7 // 2 }}{{ 7 % 3 }}{{ -7 % 3 }}{{ 7 / 2 }}{{ 6/2 }}{{ 2**3 }}{{ 2**-1 }}{{ 2**3**2 }}{{ 7.5 // 2 }}{{ -7.5 % 2 }}{{ -2**2 }}{{ 1 + 2 * 3 - 4 }})",
     R"(3-4123.53.080.5643.00.543)"},
    {R"({{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 'a' < 'b' }}{{ 1 == 1.0 }}{{ true == 1 }}{{ [1,2] == [1,2] }}{{ (1,2) == [1,2] }}{{ {'a':1} == {'a':1} }}{{ none == missing }}{{ 1 != 2 }}{{ [1,2] < [1,3] }})",
     R"(TrueFalseTrueTrueTrueTrueFalseTrueFalseTrueTrue)"},
    {R"({{ 'l' in s }}{{ 'q' in s }}{{ 3 in l }}{{ 'a' in d }}{{ 'q' not in d }}{{ 1 in missing }}{{ '' in e }}{{ none in [none] }})",
     R"(TrueFalseTrueTrueTrueFalseTrueTrue)"},
    {R"({{ s[0] }}{{ s[-1] }}{{ s[1:4] }}{{ s[::-1] }}{{ s[:3] }}{{ s[-3:] }}{{ l[1:] }}{{ l[::-1] }}{{ l[-1] }}{{ l[10] }}{{ s[100] }}{{ big[1:6:2] }}{{ big[::-2] }}{{ big[5:1:-1] }}{{ s[1:][0] }}{{ big[-100:100] }}{{ big[100:] }})",
     R"(HdelldlroW olleHHelrld[1, 2][2, 1, 3]2[2, 4, 6][7, 5, 3, 1][6, 5, 4, 3]e[1, 2, 3, 4, 5, 6, 7][])"},
    {R"({{ u[6:10] }}{{ u.split() }}{{ u|list|length }}{{ 'a,b,,c'.split(',') }}{{ 'a,b,c'.split(',',1) }}{{ ' a  b c '.split(none,1) }}{{ 'a,b,c'.rsplit(',',1) }}{{ 'abc'.split('x') }}{{ ''.split() }}{{ ''.split(',') }}{{ 'a\nb\r\nc\n'.splitlines() }})",
     R"(chào['xin', 'chào', 'Việt', 'Nam']21['a', 'b', '', 'c']['a', 'b,c']['a', 'b c ']['a,b', 'c']['abc'][]['']['a', 'b', 'c'])"},
    {R"({{ 'abc'.startswith('a') }}{{ 'abc'.endswith(('x','c')) }}{{ 'abc'.find('c') }}{{ 'abc'.find('x') }}{{ 'abcabc'.rfind('b') }}{{ 'abab'.count('a') }}{{ '12'.isdigit() }}{{ ''.isdigit() }}{{ ' '.isspace() }}{{ 'abc'.removeprefix('a') }}{{ 'abc'.removesuffix('c') }}{{ 'aaa'.count('aa') }}{{ 'aaa'.rfind('aa') }})",
     R"(TrueTrue2-142TrueFalseTruebcab11)"},
    {R"({{ 'a' if n > 5 else 'b' }}{{ 'a' if n < 5 else 'b' if n == 7 else 'c' }}{{ 'a' if false }}{{ n and 0 }}{{ 0 or 'x' }}{{ not 0 }}{{ '' or none }}{{ 1 and 2 or 3 }})",
     R"(ab0xTrueNone2)"},
    {R"({{ (1,2) }}{{ (1,) }}{{ () }}{{ 1, 2 }}{{ [] }}{{ {} }}{{ {'a': 1, 'b': [1]} }}{{ {1:2, none:3} }}{{ ["it's", 'a"b', 'x\ny', 'é', '\\'] }})",
     R"((1, 2)(1,)()(1, 2)[]{}{'a': 1, 'b': [1]}{1: 2, None: 3}["it's", 'a"b', 'x\ny', 'é', '\\'])"},
    {R"({{ range(3)|list }}{{ range(1,4)|list }}{{ range(5,0,-2)|list }}{{ dict(a=1,b=2) }}{{ dict([('x',1)]) }}{{ dict(d, z=1) }})",
     R"([0, 1, 2][1, 2, 3][5, 3, 1]{'a': 1, 'b': 2}{'x': 1}{'b': 1, 'a': 2, 'items': 5, 'z': 1})"},
    {R"({% set x = 5 %}{{ x }}{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (a, b) = [3, 4] %}{{ a + b }}{% set q %}block {{ n }}{% endset %}{{ q }}{% set q | upper | replace('K','k') %}block{% endset %}{{ q }})",
     R"(5127block 7BLOCk)"},
    {R"({% set ns = namespace(x=1, y='a') %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.zzz }}{% set ns2 = namespace({'a':1}, b=2) %}{{ ns2.a + ns2.b }})",
     R"(7a3)"},
    {R"({% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('x','y') }};{% endfor %})",
     R"(10TrueFalse3321x;21FalseFalse32132y;32FalseTrue3101x;)"},
    {R"({% for i in z %}a{% else %}empty{% endfor %}{% for k, v in d.items() %}{{ k }}={{ v }},{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in 'héo' %}{{ c }}.{% endfor %}{% for i in missing %}x{% endfor %})",
     R"(emptyb=1,a=2,items=5,baitemsh.é.o.)"},
    {R"({% for m in msgs if m.role == 'user' %}{{ loop.index }}{{ m.content }}{{ loop.length }}{% endfor %}{% for i in l %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% if i == 2 %}{% break %}{% endif %}{% endfor %})",
     R"(1hi132)"},
    {R"({% set x = 1 %}{% for i in l %}{{ x }}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 9 %}{% endif %}{{ x }})",
     R"(12121219)"},
    {R"({% for i in [1,2] %}{% for j in [1,2] %}{{ loop.index }}{{ i }}{{ j }} {% endfor %}{{ loop.index }}{% endfor %}{% for i in l %}{{ loop.changed(i > 1) }}{% endfor %})",
     R"(111 212 1121 222 2TrueTrueTrue)"},
    {R"({% macro m(a, b=2, c='x') %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, c='z') }}{{ m(b=1, a=3) }}{{ m() }}{{ m(1,2,3)|upper }})",
     R"(1-2-x1-2-z3-1-x-2-x1-2-3)"},
    {R"({% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1,2,x=3) }}{% macro g(a) %}{{ varargs|length }}{% endmacro %}{{ g(1,2,3) }}{{ m(*[1,2], **{'q': 1}) }})",
     R"((1, 2){'x': 3}2(1, 2){'q': 1})"},
    {R"({% macro w(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call w('b') %}body {{ n }}{% endcall %}{% macro r(items) %}{% for i in items %}{{ caller(i, loop.index) }}{% endfor %}{% endmacro %}{% call(x, i) r(l) %}[{{ x }}:{{ i }}]{% endcall %})",
     R"(<b>body 7</b>[3:1][1:2][2:3])"},
    {R"({% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }})",
     R"(543210)"},
    {R"({% filter upper %}abc {{ s }}{% endfilter %}{% filter replace('a','b') | upper %}aaa{% endfilter %}{% with a = 1, b = n %}{{ a + b }}{% endwith %}{{ a }})",
     R"(ABC HELLO WORLDBBB8)"},
    {R"({% macro a() %}{{ x }}{% endmacro %}{% set x = 3 %}{{ a() }}{% macro outer() %}{% set y = 5 %}{% macro inner() %}{{ y }}{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }})",
     R"(35)"},
    {R"({# comment #}a{#- c -#} b {#+ c +#})",
     R"(ab )"},
    {R"({{ 'a' 'b' "c" }}{{ "\x41\u00e9\n\t\\ \q \101" }}{{ 1_000 }}{{ 0.5 }}{{ 'it\'s' }})",
     "abcA\303\251\n\t\\ \\q A10000.5it's"},
    {R"({% raw %}{{ x }} {% if %}{% endraw %}|{%- raw -%}  q  {%- endraw -%}  z)",
     R"({{ x }} {% if %}|qz)"},
    {R"({{ {'a':{'b':1}}.a.b }}{{ {'a':{'b':1}}['a']['b'] }}{{ [[1,2],[3]][0][1] }}{{ (1,2).0 }}{{ l.0 }}{{ nn.foo }}{{ n.foo }}{{ s.foo }}{{ s.__class__ }}{{ d.__len__ }})",
     R"(11213)"},
    {R"({% generation %}abc{{ n }}{% endgeneration %}|{%- generation -%} x {%- endgeneration -%} y)",
     R"(abc7|xy)"},
    {R"({{ not true and false }}{{ not (true and false) }}{{ 1 + 1 == 2 and 'x' in 'xyz' }}{{ n if n is defined and n is not none else 'q' }})",
     R"(FalseTrueTrue7)"},
    {R"({{ -1 }}{{ +1 }}{{ - -1 }}{{ 5 - -1 }}{{ 5-1 }}{{ -n }}{{ -n|abs }}{{ n-1 }})",
     R"(-11164-776)"},
    {R"({{ msgs[:1]|map(attribute='role')|first }}{{ (msgs|last).role }}{{ msgs|length - 1 }}{{ msgs|length % 2 == 0 }})",
     R"(userassistant1True)"},
    {R"({{ '%s' }}{{ "}}" }}{{ '{{' }}{{ {'a':{'b':'}}'}} }}{{ "{%" }})",
     R"(%s}}{{{'a': {'b': '}}'}}{%)"},
    {R"({{ true|string }}{{ n|string + 'a' }}{{ l|string }}{{ nn|string }}{{ none|default('a', true) }}{{ missing|string }})",
     R"(True7a[3, 1, 2]Nonea)"},
    {R"({{ 1.0 }}{{ 1.5e300 }}{{ 123456789012345678 }}{{ 1e16 }}{{ 1e15 }}{{ 0.1+0.2 }}{{ 1/3 }}{{ 1e-5 }}{{ 123456.789e3 }}{{ 1.0|tojson }}{{ 1e22|tojson }})",
     R"(1.01.5e+3001234567890123456781e+161000000000000000.00.300000000000000040.33333333333333331e-05123456789.01.01e+22)"},
    {R"({{ l is string or s is string }}{{ 'yes' if s is string and l is not string }}{{ s is defined and s }})",
     R"(TrueyesHello World)"},
    {R"({{ 'x'.join(['a','b']) }}{{ s.lower().upper().title() }}{{ (s ~ '!').lower() }}{{ [s, n]|join('-')|lower }})",
     R"(axbHello Worldhello world!hello world-7)"},
    {R"({{ 'ẤM ÁP Đường'|lower }}{{ 'ấm áp đường'|upper }}{{ 'привет'|title }}{{ 'ΑΒΓ'|lower }}{{ 'straße'|lower }})",
     R"(ấm áp đườngẤM ÁP ĐƯỜNGПриветαβγstraße)"},
    {R"({{ " a" | trim ~ "b " | trim }}{{ 'a' | upper ~ 'b' }}{{ 1 in [1] and 2 not in [1] }}{{ [1,2,3][1:]|join }})",
     R"(abAbTrue23)"},
    {R"({%- if n -%} yes {%- elif s -%} no {%- else -%} x {%- endif -%})",
     R"(yes)"},
    {R"({% if n == 1 %}a{% elif n == 7 %}b{% else %}c{% endif %}{% if missing %}x{% endif %}{% if not missing %}y{% endif %})",
     R"(by)"},
    {R"({{ [1,2,3]|map('string')|join(',') }}{{ msgs|map(attribute='content')|map('upper')|list }}{{ msgs|map('length')|list }})",
     R"(1,2,3['HI', 'YO'][3, 3])"},
    {R"({{ [{'a':{'b':1}},{'a':{'b':2}}]|map(attribute='a.b')|list }}{{ [[1,2],[3,4]]|map(attribute=1)|list }}{{ [[1,2]]|map('join','-')|list }}{{ [{'a':{'b':1}}]|selectattr('a.b','eq',1)|list }})",
     R"([1, 2][2, 4]['1-2'][{'a': {'b': 1}}])"},
    {R"({{ 'a'|indent(2) }}{{ ''|indent }}{{ '\n'|indent }}|{{ 'x\n'|indent }}|)",
     "a\n|x\n|"},
    {R"({{ {'b':1,'a':{'d':1,'c':2}}|tojson(sort_keys=true,indent=2) }})",
     "{\n  \"a\": {\n    \"c\": 2,\n    \"d\": 1\n  },\n  \"b\": 1\n}"},
    {R"({{ "a\u2028b\x7f\x01"|tojson }}{{ ['\x7f\xa0\x01'] }})",
     "\"a\342\200\250b\177\\u0001\"['\\x7f\\xa0\\x01']"},
    {"{% if true %}\n  a\n{% endif %}\nb\n",
     "  a\nb"},
    {"  {% if true %}  \n a {%- if true %}\n  x\n  {%- endif %}\n{% endif %}\n\n",
     "  \n a  x"},
    {"a\n  {{ n }}\n  {%+ if true %}\nq\n{% endif +%}\nz\n\n",
     "a\n  7\n  q\n\nz\n"},
    {"{#- c -#}\n  a\n  {# c #}\n  b {# d #}\n",
     "a\n  b "},
    {"x {%- set a=1 -%}\n\n  y\n\t{% set a=2 %}\n z",
     "xy\n z"},
    {"a\r\nb\r{% if true %}\r\nc{% endif %}\r\n\r\n",
     "a\nb\nc"},
    {"{{ n -}}\n  a {{- n }}\n{{ n }}\n\n",
     "7a7\n7\n"},
    {"{% for i in l %}\n  {{ i }}\n{% endfor %}\n",
     "  3\n  1\n  2\n"},
    {"{% raw %}\n a {{ }}\n  {% endraw %}\n b",
     "\n a {{ }}\n b"},
    {"\n",
     ""},
    {"",
     ""},
    {"\n\n",
     "\n"},
    {"a{% if true %} {% endif %}\n   {% if true %}b{% endif %}   \n",
     R"(a b   )"},
    {"   {{ n }}",
     "   7"},
    {"{% if true -%}\n\n x {%- endif %}\n",
     R"(x)"},
    {"{{ n }}   {% set x=1 %}\ny",
     R"(7   y)"},
    {"{% set x=1 %}   {% set y=1 %}\n   {# c #}{% set x=1 %}z",
     "   z"},
    {"{%if n%}\n{{n}}{%endif%}",
     R"(7)"},
};
// clang-format on

Json Context() {
  auto context = ParseJson(kContext);
  REQUIRE(context);
  return *std::move(context);
}

Result<std::string> Render(const std::string& source, const JinjaLimits& limits = {}) {
  auto parsed = ChatTemplate::Parse(source, limits);
  if (!parsed) return std::move(parsed).error();
  return parsed->RenderText(Context());
}

TEST_CASE("snippets render as Jinja2 renders them") {
  for (const Snippet& snippet : kSnippets) {
    CAPTURE(snippet.source);
    const auto text = Render(snippet.source);
    REQUIRE_MESSAGE(text, (text ? "" : text.error().message));
    CHECK(*text == snippet.text);
  }
}

struct Failure {
  std::string source;
  Code code;
  const char* message;  // a part of it
};

TEST_CASE("a template in error is refused with its place") {
  const Failure failures[] = {
      {"a\n{% if x %}", Code::kBadData, "line 2, column 11: '{% endif %}' is missing"},
      {"{{ (1 }}", Code::kBadData, "line 1, column 7: unexpected '}'"},
      {"{{ 'abc }}", Code::kBadData, "a string without its closing quote"},
      {"{{ 1 +", Code::kBadData, "the end '}}' is missing"},
      {"{{ 1 + }}", Code::kBadData, "expected an expression"},
      {"{{ a b }}", Code::kBadData, "expected '}}'"},
      {"{# abc", Code::kBadData, "'#}'"},
      {"{% raw %}abc", Code::kBadData, "'{% endraw %}'"},
      {"{% endif %}", Code::kBadData, "unexpected '{% endif %}'"},
      {"{% break %}", Code::kBadData, "'break' outside a loop"},
      {"{% for i in l %}{% set x %}{% break %}{% endset %}{% endfor %}", Code::kBadData,
       "outside a loop"},
      {"{% for i in l %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}", Code::kBadData,
       "outside a loop"},
      {"{% set true = 1 %}", Code::kBadData, "cannot assign"},
      {"{% set 42 = 1 %}", Code::kBadData, "the name of a variable"},
      {"{% macro m(a=1, b) %}{% endmacro %}", Code::kBadData, "without a default"},
      {"{{ x is string is string }}", Code::kBadData, "two tests with 'is' in a row"},
      {"{{ 99999999999999999999 }}", Code::kBadData, "out of range"},
      {"{{ '\\x4' }}", Code::kBadData, "hexadecimal"},
      {"{{ '\\ud800' }}", Code::kBadData, "no Unicode character"},
      {"{{ l[1:2:3:4] }}", Code::kBadData, "expected ']'"},
      {"{{ l[] }}", Code::kBadData, "expected an index"},
      {"{{ a ? b }}", Code::kBadData, "unexpected character"},
      {"{{ a | }}", Code::kBadData, "the name of a filter"},
      {"{% call s %}{% endcall %}", Code::kBadData, "the call of a macro"},
      {"\xff", Code::kBadData, "not UTF-8"},
      {"{{ s|nofilter }}", Code::kUnsupported, "the filter \"nofilter\""},
      {"{{ s is notest }}", Code::kUnsupported, "the test \"notest\""},
      {"{% include 'x' %}", Code::kUnsupported, "the statement \"include\""},
      {"{% for i in l recursive %}{% endfor %}", Code::kUnsupported, "a recursive loop"},
  };
  for (const Failure& failure : failures) {
    CAPTURE(failure.source);
    const auto parsed = ChatTemplate::Parse(failure.source);
    REQUIRE_FALSE(parsed);

    CHECK(parsed.error().code == failure.code);
    CHECK_MESSAGE(parsed.error().message.find(failure.message) != std::string::npos,
                  parsed.error().message);
  }
}

TEST_CASE("an operation in error is refused with its line") {
  const Failure failures[] = {
      {"\n\n{{ missing.foo }}", Code::kBadData, "chat template: line 3: \"missing\" is undefined"},
      {"{{ d.q.r }}", Code::kBadData, "\"d.q\" is undefined"},
      {"{{ missing[0] }}", Code::kBadData, "is undefined"},
      {"{{ missing + 1 }}", Code::kBadData, "\"missing\" is undefined"},
      {"{{ missing() }}", Code::kBadData, "is undefined"},
      {"{{ s() }}", Code::kBadData, "a 'str' is not callable"},
      {"{{ s.__class__.__mro__ }}", Code::kBadData, "\"s.__class__\" is undefined"},
      {"{{ 1 / 0 }}", Code::kBadData, "a division by zero"},
      {"{{ 1 // 0 }}", Code::kBadData, "a division by zero"},
      {"{{ 1 % 0 }}", Code::kBadData, "a division by zero"},
      {"{{ 1.5 % 0 }}", Code::kBadData, "a division by zero"},
      {"{{ 0 ** -1 }}", Code::kBadData, "a division by zero"},
      {"{{ 9223372036854775807 + 1 }}", Code::kBadData, "beyond 64 bits"},
      {"{{ 10 ** 30 }}", Code::kBadData, "beyond 64 bits"},
      {"{{ (-9223372036854775807 - 1) // -1 }}", Code::kBadData, "beyond 64 bits"},
      {"{{ 'a' + 1 }}", Code::kBadData, "'+' between 'str' and 'int'"},
      {"{{ 1 < 'a' }}", Code::kBadData, "'<' between 'int' and 'str'"},
      {"{{ 1 in 'abc' }}", Code::kBadData, "needs a string on its left"},
      {"{{ '%s' % s }}", Code::kUnsupported, "formatting a string"},
      {"{% for a, b in [[1,2,3]] %}{% endfor %}", Code::kBadData, "3 values for 2 variables"},
      {"{% for i in 5 %}{% endfor %}", Code::kBadData, "a 'int' is not iterable"},
      {"{{ [1,'a']|sort }}", Code::kBadData, "'<' between"},
      {"{{ missing|tojson }}", Code::kBadData, "tojson: a value of type 'undefined'"},
      {"{{ range|tojson }}", Code::kBadData, "tojson: a value of type 'function'"},
      {"{% set x = 1 %}{% set x.y = 1 %}", Code::kBadData, "'x' is no namespace"},
      {"{{ s|replace('a') }}", Code::kBadData, "replace() needs the argument 'new'"},
      {"{{ s|upper(1) }}", Code::kBadData, "takes at most 0 arguments"},
      {"{{ s|trim(cars='x') }}", Code::kBadData, "no argument named"},
      {"{{ s|trim('a', chars='x') }}", Code::kBadData, "twice"},
      {"{{ l|map('nofilter')|list }}", Code::kUnsupported, "the filter \"nofilter\" in map()"},
      {"{{ l|select('notest')|list }}", Code::kUnsupported, "the test \"notest\" in select()"},
      {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", Code::kBadData, "takes at most 1 arguments"},
      {"{% macro m(a) %}{% endmacro %}{{ m(b=2) }}", Code::kBadData, "has no parameter \"b\""},
      {"{% macro m(a) %}{% endmacro %}{{ m(1, a=2) }}", Code::kBadData, "got \"a\" twice"},
      {"{{ l[::0] }}", Code::kBadData, "a slice with step 0"},
      {"{{ range(0, 1, 0) }}", Code::kBadData, "range() with step 0"},
      {"{{ {[1]: 2} }}", Code::kBadData, "a key of type 'list'"},
      {"{{ s.split('') }}", Code::kBadData, "an empty separator"},
      {"{{ s.index('q') }}", Code::kBadData, "the part is absent"},
      {"{{ (1, 2).append(3) }}", Code::kBadData, "a tuple cannot change"},
      {"{{ [].pop() }}", Code::kBadData, "no such element"},
      {"{{ raise_exception('no ' ~ n) }}", Code::kInvalidArgument, "the chat template says: no 7"},
  };
  for (const Failure& failure : failures) {
    CAPTURE(failure.source);
    const auto text = Render(failure.source);
    REQUIRE_FALSE(text);
    CHECK(text.error().code == failure.code);
    CHECK_MESSAGE(text.error().message.find(failure.message) != std::string::npos,
                  text.error().message);
  }
}

TEST_CASE("lists can grow, as some templates need") {
  const auto text = Render(
      "{% set x = [] %}{% for i in l %}{% set _ = x.append(i * 2) %}{% endfor %}{% set _ = "
      "x.extend('ab') %}"
      "{{ x }}{{ x.pop() }}{{ x.pop(0) }}{{ x.index('a') }}{{ x }}");
  REQUIRE_MESSAGE(text, (text ? "" : text.error().message));
  CHECK(*text == "[6, 2, 4, 'a', 'b']b62[2, 4, 'a']");
}

TEST_CASE("every limit stops what exceeds it") {
  const JinjaLimits small{
      .max_steps = 10'000, .max_output_bytes = 1000, .max_depth = 16, .max_template_bytes = 2000};
  const std::string deep(17, '(');
  const Failure failures[] = {
      {"{% for i in range(100000) %}{% endfor %}", Code::kOutOfMemory, "more than 10000 steps"},
      {"{% for i in range(200) %}{% for j in range(200) %}{% endfor %}{% endfor %}",
       Code::kOutOfMemory, "steps"},
      {"{% for i in range(200) %}abcdefghij{% endfor %}", Code::kOutOfMemory,
       "the output is longer"},
      {"{% set ns = namespace(x='abcdefgh') %}{% for i in range(50) %}{% set ns.x = ns.x + ns.x "
       "%}{% endfor %}",
       Code::kOutOfMemory, "limit"},
      {"{{ 'abc' * 1000000000000 }}", Code::kOutOfMemory, "limit"},
      {"{{ [1] * 900 * 900 }}", Code::kOutOfMemory, "limit"},
      {"{{ '' * 9000000000000000000 }}{{ 'a' * 9000000000000000000 }}", Code::kOutOfMemory,
       "limit"},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", Code::kOutOfMemory,
       "nested deeper than 16"},
      {"{% set x = [1] %}{% set _ = x.append(x) %}{{ x }}", Code::kOutOfMemory, "nested deeper"},
      {"{% set x = [1] %}{% set _ = x.append(x) %}{{ x|tojson }}", Code::kOutOfMemory,
       "nested deeper"},
      {"{% set x = [1] %}{% set _ = x.append(x) %}{% set y = [1] %}{% set _ = y.append(y) %}{{ x "
       "== y }}",
       Code::kOutOfMemory, "nested deeper"},
      {"{% set x = ['aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'] * 30 %}{{ x|join }}",
       Code::kOutOfMemory, "limit"},
      {"{{ ('a' * 500)|replace('a', 'bcd') }}", Code::kOutOfMemory, "limit"},
      {"{{ range(9223372036854775807)|list }}", Code::kOutOfMemory, "steps"},
  };
  for (const Failure& failure : failures) {
    CAPTURE(failure.source);
    const auto text = Render(failure.source, small);
    REQUIRE_FALSE(text);
    CHECK(text.error().code == failure.code);
    CHECK_MESSAGE(text.error().message.find(failure.message) != std::string::npos,
                  text.error().message);
  }
  const auto nested =
      ChatTemplate::Parse("{{ " + std::string(40, '(') + "1" + std::string(40, ')') + " }}", small);
  REQUIRE_FALSE(nested);
  CHECK(nested.error().message.find("nested deeper than 16") != std::string::npos);
  for (const char* piece :
       {"not ", "- ", "[", "a.b.c.d.e.f.", "x|upper|", "{% if a %}", "{% if a %}{% else %}"}) {
    CAPTURE(piece);
    std::string source = piece[0] == '{' ? "" : "{{ ";
    for (int i = 0; i < 20; ++i) source += piece;
    const auto parsed = ChatTemplate::Parse(source, small);
    REQUIRE_FALSE(parsed);
  }
  const auto large = ChatTemplate::Parse(std::string(2001, 'x'), small);
  REQUIRE_FALSE(large);
  CHECK(large.error().message.find("more than the limit of 2000") != std::string::npos);
}

TEST_CASE("the deepest nest that the default limits allow fits the stack") {
  std::string body = "{{ m(n) }}";
  for (int i = 0; i < 20; ++i)
    body = "{% if [[[n]]] %}{% for i in l %}" + body + "{% endfor %}{% endif %}";
  const auto text = Render("{% macro m(n) %}" + body + "{% endmacro %}{{ m(1) }}");
  REQUIRE_FALSE(text);
  CHECK(text.error().code == Code::kOutOfMemory);
  CHECK_MESSAGE(text.error().message.find("nested deeper than 1024") != std::string::npos,
                text.error().message);
}

TEST_CASE("a long chain of operators is no deep nest") {
  std::string source = "{{ 0";
  for (int i = 0; i < 1000; ++i) source += " + 1";
  const auto sum = Render(source + " }}");
  REQUIRE(sum);
  CHECK(*sum == "1000");
  source = "{% if n == 0 %}";
  for (int i = 1; i < 200; ++i)
    source += "{% elif n == " + std::to_string(i + 1) + " %}" + std::to_string(i);
  const auto branch = Render(source + "{% endif %}");
  REQUIRE(branch);
  CHECK(*branch == "6");
}

TEST_CASE("a template renders the same again, also from a moved one") {
  auto parsed =
      ChatTemplate::Parse("{% set ns = namespace(x=0) %}{% set ns.x = ns.x + n %}{{ ns.x }}");
  REQUIRE(parsed);
  const ChatTemplate moved = *std::move(parsed);
  for (int i = 0; i < 3; ++i) {
    const auto text = moved.RenderText(Context());
    REQUIRE(text);
    CHECK(*text == "7");
  }
}

}  // namespace
}  // namespace edgewise
