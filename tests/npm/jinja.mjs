// Compares our chat templates with @huggingface/jinja: the models' templates, and snippets of the language.
// Usage: node jinja.mjs PATH_TO_OURS
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { finish, loadPackage, programArgument, readJson, repository, runOurs } from "./common.mjs";

const { Template } = loadPackage("@huggingface/jinja");

const context = {
  s: "Hello World",
  u: "  xin chào Việt Nam \n",
  n: 7,
  l: [3, 1, 2],
  w: ["b", "A", "a", "c"],
  d: { b: 1, a: 2 },
  no: null,
  empty: [],
  messages: [
    { role: "user", content: "hi", n: 2 },
    { role: "assistant", content: "yo", n: 1, calls: [{ name: "f", arguments: { x: [1, "ü\"\n"] } }] },
  ],
};

// The package departs from Jinja2 in how it prints booleans, none and lists, so these snippets do not print them.
const snippets = [
  "{{ s|upper }}{{ s|lower }}{{ s|title }}{{ s|length }}{{ u|trim }}|{{ u.strip() }}|{{ u.rstrip() }}|{{ u.lstrip() }}",
  "{{ l|join(',') }}{{ l|sort|join }}{{ l|reverse|join }}{{ w|sort|join }}{{ [1, 2, 1]|unique|join }}{{ l|first }}{{ l|last }}{{ l|length }}",
  "{{ missing|default('x') }}{{ ''|default('y', true) }}{{ s|replace('l', 'L') }}{{ s.replace('o', '0', 1) }}",
  "{{ messages|map(attribute='role')|join('-') }}{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join }}",
  "{{ messages|rejectattr('role', 'equalto', 'user')|map(attribute='content')|join }}",
  "{{ messages|tojson }}{{ messages|tojson(indent=2) }}{{ d|tojson }}{{ [1, none, true, 'é']|tojson }}{{ empty|tojson(indent=4) }}",
  "{% for k, v in d|items %}{{ k }}{{ v }}{% endfor %}{% for k, v in d.items() %}{{ k }}{{ v }}{% endfor %}{% for k, v in d|dictsort %}{{ k }}{{ v }}{% endfor %}",
  "{{ 7 // 2 }}{{ -7 // 2 }}{{ 7 % 3 }}{{ 7 / 2 }}{{ 2 ** 3 }}{{ 1 + 2 * 3 }}{{ 'a' ~ 1 ~ 'b' }}{{ 'a' + 'b' }}{{ -n }}{{ n - 1 }}{{ n-1 }}",
  "{% if n > 5 and s is string and not missing is defined %}A{% elif n %}B{% else %}C{% endif %}{{ 'x' if n == 7 else 'y' }}{{ 'a' if n in l else 'b' }}",
  "{{ 'y' if 'll' in s }}{{ 'y' if 'a' in d }}{{ 'y' if 9 not in l }}{{ 'y' if no is none }}{{ 'y' if d is mapping }}{{ 'y' if l is iterable }}{{ 'y' if n is number }}",
  "{{ s[0] }}{{ s[-1] }}{{ s[1:4] }}{{ s[::-1] }}{{ l[1:]|join }}{{ l[::-1]|join }}{{ messages[0].role }}{{ messages[-1]['content'] }}{{ s[:-1] }}",
  "{{ 'a,b,c'.split(',')[1] }}{{ s.split()|join('_') }}{{ 'y' if s.startswith('He') }}{{ 'y' if s.endswith(('x', 'd')) }}{{ 'a b c'.split(' ', 1)|last }}",
  "{% set x = 1 %}{% set a, b = 2, 3 %}{{ x }}{{ a }}{{ b }}{% set t %}block {{ n }}{% endset %}{{ t }}",
  "{% set ns = namespace(x=0) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
  "{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.length }}{{ ',' if not loop.last }}{{ '^' if loop.first }}{% endfor %}",
  "{% for i in range(2, 10, 3) %}{{ i }}{% else %}none{% endfor %}{% for i in empty %}{% else %}none{% endfor %}{% for i in l if i > 1 %}{{ i }}{% endfor %}",
  "{% for i in l %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
  "{% macro m(a, b=2) %}{{ a }}-{{ b }};{% endmacro %}{{ m(1) }}{{ m(1, b=3) }}{{ m(a=4) }}",
  "{% macro w() %}<{{ caller() }}>{% endmacro %}{% call w() %}in{{ n }}{% endcall %}{% filter upper %}abc{% endfilter %}",
  "{% generation %}abc{{ n }}{% endgeneration %}{# comment #}",
  "{% if true %}\n  a\n{% endif %}\n  {% if true %}\n    b\n  {%- endif %}\n\n  {{- n }}\n{{ n -}}\n c\n",
  "{% for m in messages %}\n{{ m.role }}\n{% endfor %}\n{% set q = 1 %}\n\n  {# c #}\nend\n",
  "{{ 'a\\nb\\n\\nc'|indent }}{{ 'a\\nb'|indent(2) }}{{ -5|abs }}{{ '42'|int + 1 }}{{ 'x'|int }}{{ n|string + 'a' }}",
];

function render({ name, template, context: variables }) {
  try {
    return new Template(template).render(variables);
  } catch (error) {
    throw new Error(`the package cannot render ${name}: ${error.message}`);
  }
}

const cases = readJson(join(repository, "src/text/jinja/testdata/cases.json")).map((test) => ({
  ...test,
  template: readFileSync(join(repository, "src/text/jinja/testdata", test.template), "utf8"),
}));
for (const [i, template] of snippets.entries()) cases.push({ name: `snippet ${i}`, template, context });

const ours = runOurs(programArgument(), ["render"], cases);
if (ours.length !== cases.length) throw new Error(`${ours.length} renderings for ${cases.length} cases`);
const differences = [];
for (const [i, test] of cases.entries()) {
  const expected = render(test);
  if (ours[i].text !== expected) {
    differences.push(`${test.name}\n  ours: ${JSON.stringify(ours[i].text ?? ours[i].error)}\n  npm:  ${JSON.stringify(expected)}`);
  }
}
finish("chat templates", cases.length, differences);
