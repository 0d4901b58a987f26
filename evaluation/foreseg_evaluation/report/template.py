# SPDX-License-Identifier: Apache-2.0
"""The page's text, for Jinja with autoescape: everything from outside is escaped there.

Kept in a module, so that packages need no data files. Does not know: where its values come from.
"""

TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
:root { --paper: #fff; --ink: #1c2430; --soft: #5a6675; --line: #d5dbe3; --panel: #f4f6f9;
  --accent: #2563c9; --good: #14783c; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #12161c; --ink: #e4e9f0; --soft: #9aa7b6; --line: #343d49; --panel: #1b212a;
    --accent: #6ea8ff; --good: #5fd08a; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.2rem clamp(0.8rem, 3vw, 2rem) 4rem;
  background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.4rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 0.6rem; border-bottom: 1px solid var(--line);
  padding-bottom: 0.2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 0.4rem; overflow-wrap: anywhere; }
p { margin: 0.4rem 0; }
.soft, figcaption, caption { color: var(--soft); font-size: 0.88rem; }
.facts { display: flex; flex-wrap: wrap; gap: 0.2rem 1.4rem; margin: 0.6rem 0; padding: 0;
  list-style: none; font-size: 0.92rem; overflow-wrap: anywhere; }
.facts b { font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: 0.8rem; margin: 1rem 0; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 0.6rem;
  padding: 0.7rem 0.9rem; }
.card .number { display: block; font-size: 2rem; font-weight: 650; line-height: 1.2;
  font-variant-numeric: tabular-nums; }
.warn { color: var(--bad); }
.scroll { overflow-x: auto; margin: 0.4rem 0 1.2rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
caption { text-align: left; padding: 0.2rem 0; }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; }
thead th:first-child { width: 30%; }
thead th.text { width: auto; }
tbody th { font-weight: 500; min-width: 6.5rem; overflow-wrap: break-word; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.text { min-width: 11rem; overflow-wrap: anywhere; }
.text, h1, h3, li { unicode-bidi: isolate; }
@media (max-width: 34rem) { table { font-size: 0.85rem; } th, td { padding: 0.3rem 0.3rem; }
  .text { min-width: 7rem; } tbody th { min-width: 4rem; } }
.good { color: var(--good); } .bad { color: var(--bad); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: 1rem; }
figure { margin: 0; }
.plots figure { max-width: 32rem; }
figure svg { width: 100%; height: auto; display: block; }
.strip { display: grid; gap: 0.5rem; margin: 0.5rem 0; grid-template-columns: repeat(2, 1fr); }
@media (min-width: 34rem) { .strip { grid-template-columns: repeat(3, 1fr); } }
@media (min-width: 60rem) { .strip { grid-template-columns: repeat(6, 1fr); } }
.strip img { width: 100%; height: auto; display: block; border-radius: 0.3rem; }
.episode { margin: 0 0 1.6rem; }
.key { display: inline-block; width: 1.1em; height: 0.8em; border-radius: 0.15em;
  margin: 0 0.3em 0 0.9em; }
.key.truth { border: 2px solid rgb{{ truth_rgb }}; background: #222; }
.key.answer { background: repeating-linear-gradient(45deg, rgb{{ answer_rgb }} 0 4px,
  rgb{{ casing_rgb }} 4px 6px); }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; }
</style>
</head>
<body>
{% macro group_table(what, groups) %}
<div class="scroll"><table>
<caption>By {{ what }}: percent, with 95 % intervals</caption>
<thead><tr><th>{{ what }}</th><th class="n">J&amp;F</th><th class="n">interval</th>
<th class="n">scored</th><th class="n">failed</th><th class="n">J</th><th class="n">F</th></tr>
</thead><tbody>
{% for g in groups %}<tr><th>{{ g.name }}</th><td class="n">{{ g.j_and_f.mean | number }}</td>
<td class="n">{{ g.j_and_f | bounds }}</td><td class="n">{{ g.num_scored }}</td>
<td class="n{{ ' warn' if g.num_failed }}">{{ g.num_failed }}</td>
<td class="n">{{ g.j.mean | number }}</td><td class="n">{{ g.f.mean | number }}</td></tr>
{% endfor %}</tbody></table></div>
{% endmacro %}
{% macro plot_figures(plots) %}
<div class="plots">
{% for plot in plots %}<figure role="img" aria-label="{{ plot.alt }}">
<figcaption>{{ plot.title }}</figcaption>{{ plot.svg }}</figure>
{% endfor %}</div>
{% endmacro %}
{% macro film(strip) %}
<div class="episode">
<h3>{{ strip.question or strip.id }}</h3>
<p class="soft">J&amp;F {{ strip.score.j_and_f | number }} (J {{ strip.score.j | number }},
F {{ strip.score.f | number }}) · {{ strip.id }}{% if strip.facts %} · {{ strip.facts }}{% endif %}
</p>
{% if strip.answer or strip.said %}<p class="soft">
{% if strip.answer %}true answer: <bdi>{{ strip.answer }}</bdi>{{ " · " if strip.said }}{% endif %}
{% if strip.said %}answered: <bdi>{{ strip.said }}</bdi>{% endif %}</p>{% endif %}
{% if strip.problem %}<p class="warn">No pictures: {{ strip.problem }}</p>{% endif %}
{% if strip.frames %}<div class="strip">
{% for f in strip.frames %}<figure><img width="{{ f.size_wh[0] }}" height="{{ f.size_wh[1] }}"
 loading="lazy" src="data:image/jpeg;base64,{{ f.jpeg_base64 }}"
 alt="frame {{ f.stem }}: truth outlined, answer filled ({{ f.said }}), J&amp;F \
{{ f.j_and_f | number }}">
<figcaption>{{ "%.1f" | format(f.time_s) }} s · {{ f.j_and_f | number }}
{{- "" if f.said == "answer" else " · " ~ f.said }}
{%- if f.truth %}<br>true: <bdi>{{ f.truth }}</bdi>{% endif %}</figcaption></figure>
{% endfor %}</div>{% endif %}
</div>
{% endmacro %}
{% macro pair_table(what, pairs) %}
<div class="scroll"><table><caption>{{ what }}</caption>
<thead><tr><th class="text">episode</th><th class="n">this</th><th class="n">other</th>
<th class="n">points</th></tr></thead><tbody>
{% for p in pairs %}<tr><td class="text"><bdi>{{ p.result.question or p.result.id }}</bdi>
<span class="soft">{{ p.result.id if p.result.question }}</span></td>
<td class="n">{{ p.own | number }}</td><td class="n">{{ p.other | number }}</td>
<td class="n {{ 'good' if p.difference > 0 else 'bad' }}">{{ p.difference | signed }}</td></tr>
{% endfor %}</tbody></table></div>
{% endmacro %}
<header>
<p class="soft">foreseg evaluation</p>
<h1>{{ title }}</h1>
<ul class="facts">
{% for name, value in facts %}<li><b>{{ name }}</b> {{ value }}</li>
{% endfor %}</ul>
</header>
<main>
<div class="cards">
{% for name, x in headline %}<div class="card"><span class="soft">{{ name }}</span>
<span class="number">{{ x.mean | number }}</span>
<span class="soft">{{ x | bounds }}</span></div>
{% endfor %}<div class="card"><span class="soft">episodes</span>
<span class="number">{{ total.num_scored }}</span>
<span class="{{ 'warn' if total.num_failed else 'soft' }}">scored{% if total.num_failed %}, \
{{ total.num_failed }} failed{% endif %}</span></div>
</div>
<p class="soft">Percent; mean over the {{ total.num_scored }} scored episode{{ "s" if total.num_scored != 1 }}, of each over its
scored frames (and objects). Below: 95 % interval, bootstrap over episodes.
{% if total.num_failed == 1 %}The failed episode counts in no mean; it is listed with its error.
{% elif total.num_failed %}The {{ total.num_failed }} failed episodes count in no mean; they are
listed with their errors.{% endif %}{% if total.j_and_f.count != total.num_scored %}
{{ total.num_scored - total.j_and_f.count }} scored episodes have no frame that counts.{% endif %}
</p>
{% if official %}<h2>As the benchmark publishes</h2>
<div class="scroll"><table><caption>{{ official.about }}</caption>
<thead><tr><th>percent</th>{% for name in official.columns %}<th class="n">{{ name }}</th>
{% endfor %}</tr></thead><tbody>
{% for name, values in official.rows %}<tr><th>{{ name }}</th>
{% for value in values %}<td class="n">{{ value | number }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}
{% if groups %}<h2>Groups</h2>
{% for what, members in groups %}{{ group_table(what, members) }}{% endfor %}{% endif %}
{% if scores %}<h2>Further scores</h2>
<div class="scroll"><table>
<caption>Means over the episodes to which a score applies, in the score's own unit</caption>
<thead><tr><th>score</th><th class="n">mean</th><th class="n">95 % interval</th>
<th class="n">episodes</th></tr></thead><tbody>
{% for name, x in scores %}<tr><th>{{ name }}</th><td class="n">{{ x.mean | number(3) }}</td>
<td class="n">{{ x | bounds(3) }}</td><td class="n">{{ x.count }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
{% if plots %}<h2>Distributions</h2>{{ plot_figures(plots) }}{% endif %}
{% if comparison %}<h2>Against {{ other_title }}</h2>
<div class="cards"><div class="card"><span class="soft">J&amp;F, this minus other</span>
<span class="number">{{ comparison.difference.mean | signed }}</span>
<span class="soft">{{ comparison.difference | bounds }} points</span></div>
<div class="card"><span class="soft">episodes that both scored</span>
<span class="number">{{ comparison.pairs | length }}</span>
<span class="{{ 'warn' if comparison.num_unpaired else 'soft' }}">
{{ comparison.num_unpaired }} left out</span></div></div>
<p class="soft">Paired by episode; 95 % interval, bootstrap over the differences. Left out: what
only one of the runs has, or what failed in one.</p>
{% if comparison.kinds %}<div class="scroll"><table><caption>Difference by kind, points of J&amp;F
</caption><thead><tr><th>kind</th><th class="n">difference</th><th class="n">95 % interval</th>
<th class="n">episodes</th></tr></thead><tbody>
{% for g in comparison.kinds %}<tr><th>{{ g.name }}</th>
<td class="n">{{ g.difference.mean | signed }}</td><td class="n">{{ g.difference | bounds }}</td>
<td class="n">{{ g.difference.count }}</td></tr>{% endfor %}</tbody></table></div>{% endif %}
{% if comparison_plots %}{{ plot_figures(comparison_plots) }}{% endif %}
{% if wins %}{{ pair_table("Biggest wins", wins) }}{% endif %}
{% if losses %}{{ pair_table("Biggest losses", losses) }}{% endif %}{% endif %}
{% if best %}<h2>Best and worst episodes</h2>
{% if has_frames %}<p class="soft"><span class="key truth" style="margin-left: 0"></span>truth
<span class="key answer"></span>answer. Under each frame: its time in the clip and its J&amp;F.</p>
{% endif %}
<details open><summary>Worst {{ worst | length }}</summary>
{% for strip in worst %}{{ film(strip) }}{% endfor %}</details>
<details open><summary>Best {{ best | length }}</summary>
{% for strip in best %}{{ film(strip) }}{% endfor %}</details>{% endif %}
{% if failed %}<h2>Failed episodes: {{ failed | length }}</h2>
<div class="scroll"><table><thead><tr><th class="text">episode</th><th>question</th><th>error</th></tr></thead>
<tbody>{% for r in failed %}<tr><td class="text">{{ r.id }}</td>
<td class="text">{{ r.question }}</td>
<td class="text warn">{{ r.error | truncate(600, True) }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
<details><summary>{{ "First" if num_rows_left else "All" }} {{ rows | length }} scored
episodes</summary>
<div class="scroll"><table><thead><tr><th class="text">episode</th><th>question</th><th class="n">J&amp;F</th>
<th class="n">J</th><th class="n">F</th></tr></thead><tbody>
{% for r, s in rows %}<tr><td class="text">{{ r.id }}</td><td class="text">{{ r.question }}</td>
<td class="n">{{ s.j_and_f | number }}</td><td class="n">{{ s.j | number }}</td>
<td class="n">{{ s.f | number }}</td></tr>
{% endfor %}</tbody></table></div>
{% if num_rows_left %}<p>{{ num_rows_left }} more stand in the run's folder.</p>{% endif %}
</details>
{% for what, lines in notes %}<details><summary>{{ what }}: {{ lines | length }}</summary>
<ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul></details>{% endfor %}
</main>
</body>
</html>
"""
