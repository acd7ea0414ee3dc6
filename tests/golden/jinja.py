"""jinja.json: what transformers' Jinja environment makes of small templates, one construct each; null where it raises.
tests/data/jinja_test.cpp holds data/jinja against it. Usage: jinja.py OUT"""

import json
import pathlib
import sys

from transformers.utils import chat_template_utils

VARIABLES = {
    "s": "Hello World", "e": "", "u": "Zürich 日本", "n": 3, "z": 0, "f": 2.5, "t": True, "no": None, "l": [1, 2, 3], "w": ["b", "A", "c"],
    "d": {"a": 1, "b": [True, None, 1.5], "items": "x"}, "m": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": " yo ", "k": 2}],
    "q": 'it\'s "q" \\ \n\t\u0001\u007fé', "blank": " \n a\u00a0b \u3000", "lines": "one\ntwo\n\nthree", "big": 1e21, "small": 1.5e-7, "neg": -7,
}

SNIPPETS = r'''
{{ s }}|{{ n }}|{{ f }}|{{ t }}|{{ no }}|{{ missing }}|{{ l }}|{{ d }}|{{ q }}
{{ [q] }} {{ {'x': q} }} {{ ("a",) }} {{ (1, "b") }} {{ () }}
{{ big }} {{ small }} {{ 1.0 }} {{ 1e16 }} {{ 1e15 }} {{ 0.0001 }} {{ 123456.789 }} {{ -0.0 }} {{ 3 / 2 }} {{ 4 / 2 }}
{{ n + 2 }} {{ n - 5 }} {{ n * 2.0 }} {{ neg // 2 }} {{ neg % 3 }} {{ 7 % -3 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }}
{{ 1 + 2 * 3 - 4 / 2 }} {{ (1 + 2) * 3 }} {{ -n + 1 }} {{ - n ** 2 }} {{ not n }} {{ not z and n }} {{ z or e or 'x' }} {{ z and 1 }}
{{ 'a' ~ 1 ~ none ~ missing ~ true }} {{ 'a' + 'b' 'c' }} {{ 'ab' * 2 }} {{ 2 * 'ab' }} {{ [1] + [2] }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 != 2 }} {{ 'x' == 1 }} {{ 2 >= 2 }} {{ 2 > 2 }}
{{ 'ell' in s }} {{ 2 in l }} {{ 'a' in d }} {{ 5 not in l }} {{ 'x' in missing }} {{ missing in l }} {{ not 1 in l }}
{{ 'y' if n else 'n' }} {{ 'y' if z }}| {{ 'a' if z else 'b' if z else 'c' }} {{ (1 if z else 2) + 1 }}
{{ s[0] }} {{ s[-1] }} {{ s[1:4] }} {{ s[::-1] }} {{ s[:-3] }} {{ u[1] }} {{ u[-2:] }} {{ l[1:] }} {{ l[::2] }} {{ l[-2:-1] }} {{ l[5:] }} {{ l[::-1] }} {{ s[20] }}|{{ l[20] }}|{{ s[3:1] }}|{{ l[-100:2] }}|{{ l[2:-100:-1] }}
{{ d.a }} {{ d['a'] }} {{ d.zz }}|{{ d['items'] }} {{ m[0].role }} {{ m.0.role }} {{ m[1]['k'] + 1 }} {{ no.x }}|{{ n.x }}|{{ l.x }}|{{ l['x'] }}|{{ no['x'] }}|
{{ missing.x }}
{{ missing['x'] }}
{{ missing + 1 }}
{{ missing > 1 }}
{{ missing() }}
{{ missing is defined }} {{ missing is undefined }} {{ missing|default('d') }} {{ e|default('d', true) }} {{ no|default('d') }} {{ missing|d }}| {{ missing|length }} {{ missing|list }} {{ missing|string }}|{{ missing|trim }}|{{ missing == missing }} {{ missing == none }} {{ not missing }} {{ missing is none }} {{ missing is iterable }} {{ missing is sequence }} {{ missing is mapping }} {{ missing is string }}
{{ missing|tojson }}
{{ s is string }} {{ n is string }} {{ n is number }} {{ t is number }} {{ n is integer }} {{ t is integer }} {{ f is float }} {{ n is float }} {{ t is boolean }} {{ t is true }} {{ n is true }} {{ z is false }} {{ no is none }} {{ d is mapping }} {{ l is mapping }} {{ l is iterable }} {{ s is iterable }} {{ n is iterable }} {{ d is sequence }} {{ s is sequence }} {{ n is sequence }} {{ range is callable }}
{{ n is odd }} {{ n is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ n is eq 3 }} {{ n is equalto(4) }} {{ n is ne 3 }} {{ n is gt 2 }} {{ n is lt 2 }} {{ n is ge 3 }} {{ n is le 2 }} {{ 2 is in l }} {{ 2 is in [3] }} {{ 'ab' is lower }} {{ 'aB' is upper }} {{ 'AB' is upper }} {{ n is not string }} {{ not n is string }} {{ none is sameas none }} {{ n is defined and s is string }} {{ n is string or l is iterable }}
{{ s is string and 'a' }} {{ 'p' if s is string else 'q' }} {{ [1] is iterable and not [1] is string }}
{{ blank|trim }}|{{ blank.strip() }}|{{ blank.lstrip() }}|{{ blank.rstrip() }}|{{ 'xxaxx'.strip('x') }} {{ 'xxaxx'.lstrip('x') }} {{ 'xyaxy'.rstrip('xy') }} {{ 'xay'|trim('xy') }} {{ n|trim }}
{{ s|upper }} {{ s|lower }} {{ 'hELLO wORLD'|capitalize }} {{ 'hello big world'|title }} {{ s.upper() }} {{ s.lower() }} {{ 'hi there'.title() }} {{ 'aBC'.capitalize() }} {{ "it's o'clock"|title }}
{{ s|replace('o', '0') }} {{ s|replace('o', '0', 1) }} {{ s.replace('l', 'L') }} {{ s.replace('l', 'L', 2) }} {{ 5|replace('5', 6) }}
{{ s.split() }} {{ s.split('o') }} {{ s.split('o', 1) }} {{ s.split(maxsplit=1, sep='l') }} {{ s.rsplit('o', 1) }} {{ 'a  b c'.split(none, 1) }} {{ blank.split() }} {{ e.split('x') }} {{ e.split() }} {{ lines.splitlines() }} {{ 'a\n'.splitlines() }}
{{ s.startswith('He') }} {{ s.endswith('ld') }} {{ s.startswith(('x', 'H')) }} {{ s.endswith(('x',)) }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }} {{ 'abc'.removeprefix('b') }}
{{ s.find('o') }} {{ s.rfind('o') }} {{ s.find('zz') }} {{ u.find('日') }} {{ s.count('l') }} {{ s.index('W') }} {{ '-'.join(['a', 'b']) }} {{ '12'.isdigit() }} {{ 'a1'.isalpha() }} {{ ' '.isspace() }} {{ 'a1'.isalnum() }} {{ e.isdigit() }}
{{ s.index('zz') }}
{{ s.nothing }}|{{ '-'.join([1]) }}
{{ s|length }} {{ u|length }} {{ l|count }} {{ d|length }} {{ e|length }}
{{ n|length }}
{{ l|join }} {{ l|join(', ') }} {{ m|join('-', attribute='role') }} {{ w|join(d='/') }} {{ s|join('.') }}
{{ l|first }} {{ l|last }} {{ s|first }} {{ []|first }}| {{ s|list }} {{ d|list }} {{ 3|string + 'x' }} {{ s|string }} {{ d|string }}
{{ '42'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ 3.9|int }} {{ -3.9|int }} {{ '3.7'|int }} {{ true|int }} {{ '2.5'|float }} {{ 'x'|float }} {{ 3|float }} {{ ' 5 '|int }} {{ '+5'|int }}
{{ neg|abs }} {{ 2.567|round(2) }} {{ 2.5|round }} {{ 2.1|round(0, 'ceil') }} {{ 2.9|round(method='floor') }}
{{ l|map('string')|list }} {{ m|map(attribute='role')|list }} {{ m|map(attribute='k', default=0)|list }} {{ w|map('upper')|join(',') }} {{ l|select('odd')|list }} {{ l|reject('odd')|list }} {{ l|select|list }} {{ m|selectattr('role', 'equalto', 'user')|list|length }} {{ m|selectattr('k')|list|length }} {{ m|selectattr('k', 'defined')|list|length }} {{ m|rejectattr('role', 'eq', 'user')|map(attribute='content')|first|trim }} {{ l|select('in', [1, 3])|list }} {{ l|select('greaterthan', 1)|list }}
{{ d|items|list }} {{ d.items()|list }} {{ d.keys()|list }} {{ d.values()|list }} {{ d.get('a') }} {{ d.get('zz') }} {{ d.get('zz', 4) }} {{ missing|items|list }} {{ l.index(2) }} {{ l.count(2) }}
{{ w|sort }} {{ w|sort(case_sensitive=true) }} {{ l|sort(reverse=true) }} {{ m|sort(attribute='content')|map(attribute='role')|list }} {{ d|dictsort|map('first')|list }} {{ {'b': 1, 'a': 2}|dictsort(by='value') }} {{ ['a', 'A', 'b']|unique|list }} {{ [2, 1, 2]|unique|list }} {{ l|reverse|list }} {{ s|reverse }} {{ l|sum }} {{ m|sum(attribute='zz', start=0) if false }} {{ l|max }} {{ w|min }} {{ []|max }}|
{{ d|tojson }} {{ q|tojson }} {{ u|tojson }} {{ u|tojson(ensure_ascii=true) }} {{ '\U0001F600'|tojson(ensure_ascii=true) }} {{ big|tojson }} {{ small|tojson }} {{ 1.0|tojson }} {{ no|tojson }} {{ t|tojson }} {{ {'b': 1, 'a': [1, {}]}|tojson(sort_keys=true) }} {{ d|tojson(separators=(',', ':')) }} {{ {1: 2, none: 3, true: 4}|tojson }} {{ '<a>&\'' |tojson }} {{ []|tojson }} {{ (1,)|tojson }}
{{ d|tojson(indent=2) }}
{{ {'a': {}, 'b': [], 'c': [[1]]}|tojson(indent=4) }}
{{ {'a': [1]}|tojson(indent=0) }}
{{ lines|indent }}
{{ lines|indent(2, true) }}
{{ lines|indent(2, blank=true) }}|{{ lines|indent('> ') }}|{{ 'a\n'|indent }}|{{ ''|indent }}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}
{% for x in l if x != 2 %}{{ x }}{{ loop.last }}{% else %}none{% endfor %} {% for x in [] %}x{% else %}none{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %} {% for k in d %}{{ k }}{% endfor %} {% for c in u %}{{ c }}.{% endfor %} {% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for x in l %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %} {% for x in l %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %} {% for x in l %}{% for y in l %}{% if y == 2 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}
{% set a = 1 %}{% for x in l %}{{ a }}{% set a = x %}{{ a }}{% endfor %}{{ a }} {% if true %}{% set a = 9 %}{% endif %}{{ a }}
{% set ns = namespace(a=1, b='x') %}{% for x in l %}{% set ns.a = ns.a + x %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}| {% set a, b = 1, 2 %}{{ a }}{{ b }} {% set a = 1, 2 %}{{ a }} {% set x %}in{{ n }}{% endset %}{{ x }} {% set x | upper | trim %} in {% endset %}{{ x }}
{% macro f(a, b=2, c=a) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(b=5, a=4) }}{{ f() }}{{ f(1)|length }}
{% set v = 'x' %}{% macro g() %}{{ v }}{{ late }}{% endmacro %}{% set late = 'L' %}{{ g() }}{% macro h(n) %}{{ n }}{% if n > 0 %}{{ h(n - 1) }}{% endif %}{% endmacro %}{{ h(3) }}{% set v = 'y' %}{{ g() }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(b=2) }}
{{ raise_exception('no') }}
{{ range(3)|list }} {{ range(1, 7, 2)|list }} {{ range(3, 0, -1)|list }} {{ dict(a=1, b='x') }} {{ strftime_now('%Y-%m-%d %A %B %H') }}
{%- if n == 3 -%}  a  {%- elif n %} b {% else %} c {%- endif -%}  |
  {% if n %}
  x
  {% endif %}
y {% if n %} z {% endif %} w

  {{ n }}
  {# a comment #}
  z {# another #} k

a {%- if n %} b {%+ if n %} c {% endif +%}
 d {% endif %}

   {%+ if n %}x{% endif %}  {{- n -}}  y
{{ "a\nb\tc\\d\"e\'f\x41\u00e9\/" }} {{ 'a"b' }} {{ "a" "b" }}
{{ {'a': {'b': 1}}.a.b }} {{ {'a': 1}['a'] }} {{ [[1, 2], [3]][0][1] }} {{ {} }} {{ {'k': [1, {'z': 2}]} }} {{ {"a": 1, "a": 2} }}
{{ 1_000 }} {{ 10.5e-1 }} {{ 1e3 }} {{ 12.0 }}
{{ s.__class__ }}
{{ l.append(4) }}
{% generation %}a{{ n }}{% endgeneration %}b
{{ (s if s else '') + ('x' if missing is defined else 'y') }} {{ s|length > 3 and l|length == 3 }} {{ l|length - 1 }} {{ (l|length) % 2 == 1 }} {{ 'a' in s|lower }}
{{ m[-1]['content'] is defined and m[-1]['content'] is not none }} {{ (m|last).role }} {{ m[1:][0].content|trim }} {{ m|length }} {{ m[0].get('role') }} {{ m[0]['missing']|default('d') }} {{ 'k' in m[0] }}
{{ 'a' if false else none }} {{ none is none }} {{ none == none }} {{ [none, true] }} {{ none|string }}
{{ 'x' ~ (1, 2) }} {{ [1, 'a', 2.0, none, true, {'a': (1,)}] }}
{{ "%s" % s }}
{{ 'ÉCOLE Été'.lower() }} {{ 'école'|upper }} {{ 'école été'.title() }} {{ 'ab日cd é'|title }} {{ '1a b-c (d'.title() }} {{ 'x-y (z [w a.b'|title }} {{ 'éA'.capitalize() }}
{{ '{} {1} {x} {{}}'.format(1, 2, x='y') if false else '{0}-{1}-{0}'.format('a', 2) }} {{ '{}{}'.format(1, none) }} {{ '{x}{{'.format(x='y') }}
{% filter upper|trim %} a{{ n }} {% endfilter %}|{{ s|safe }} {{ (s|safe)[:2] }}{% set x = s|safe if n %}{{ x }}{{ (s|safe) + ('x'|safe) }}{{ ('<'|safe) + '<"&>' ~ "'" }}{{ '<' ~ ('<'|safe) ~ '<' }}
{{ no|map('upper')|list }} {{ no|selectattr('a')|list }} {{ missing|select|list }}
{{ none|join }}
{{ 5 // 0 }}
{{ 'abc' - 'a' }}
{{ d.update({'a': 2}) }}
{% if s and (n == 3 or z) and not e %}yes{% endif %}{% if not (n == 3) %}no{% endif %}{% if n is defined and n in [1, 2, 3] %}in{% endif %}
{{ none + 'a' }}
{{ true + 1 }} {{ true and 'x' }} {{ [] or {} or 0 or 'end' }} {{ true|tojson }} {{ True }} {{ None }} {{ False }}
'''


def snippets():
    whole, block = [], []
    for line in SNIPPETS.strip("\n").split("\n"):
        whole.append(line)
    # Snippets of several lines, for white space.
    return whole + [
        "  {% if n %}\n  x\n  {% endif %}\ny {% if n %} z {% endif %} w\n", "\n  {{ n }}\n  {# a comment #}\n  z {# another #} k\n\n",
        "a {%- if n %} b {%+ if n %} c {% endif +%}\n d {% endif %}\n", "   {%+ if n %}x{% endif %}  {{- n -}}  y", "{% for x in l -%}\n  {{ x }}\n{%- endfor %}\nend\n",
        "{% for x in l %}\n{{ x }}\n{% endfor %}\nend\n\n", "a\r\n{% if n %}\r\nb\r\n{% endif %}\r\nc\r\n", "{{ n }}\n{{ n }}\n\n\n", "{#- c -#}  x  {#- d #}\n y",
        "\t {%- set a = 1 %}\n\n {{ a }}", "{% set a %}\n x\n{% endset %}[{{ a }}]", "{{- n }} {{ n -}}\n\n a", "{% if n %}{# c #}\n{% endif %}\n.", "x{% if n %}\n\n\ny{% endif %}",
        "{%- macro f(x) %}\n  <{{ x }}>\n{%- endmacro %}\n{{ f(1) }}\n{{ f(2) }}", "{% if n\n   and s %}multi\nline{%\nendif %}", "{{ {\n 'a': 1,\n 'b': 2,\n} }} {{ [\n1,\n2,\n] }}",
    ]


def render(text):
    try:
        import datetime

        template = chat_template_utils._compile_jinja_template(text)
        return template.render(strftime_now=datetime.datetime(2024, 7, 26).strftime, **VARIABLES)
    except Exception:
        return None


def main(out):
    rows = [[text, render(text)] for text in snippets()]
    pathlib.Path(out).write_text(json.dumps({"variables": VARIABLES, "snippets": rows}, ensure_ascii=True, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
