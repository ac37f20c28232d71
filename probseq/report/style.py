"""The style of the page: light, dark, phone and paper."""

from __future__ import annotations

import re

from probseq.report.vector import night

__all__ = ["style"]


def style(text: str) -> str:
    """The style sheet, with the colours of the pictures in ``text`` as variables for light and dark pages."""
    used = sorted(set(re.findall(r"var\(--c([0-9a-f]{6})\)", text)))
    day = "".join(f"--c{c}:#{c};" for c in used)
    dark = "".join(f"--c{c}:#{night(c)};" for c in used)
    return f"{_CSS}:root{{{day}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"


_CSS = """
:root{--ink:#1d2129;--soft:#5a6372;--line:#dfe3e9;--page:#fff;--card:#f7f8fa;--mark:#0069a6}
@media screen and (prefers-color-scheme:dark){
:root{--ink:#e6e8ec;--soft:#a3acba;--line:#343a44;--page:#15181d;--card:#1c2026;--mark:#6cb7e8}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1080px;margin:0 auto;padding:2.2rem 1.2rem 3rem}
h1{font-size:clamp(1.6rem,4.5vw,2.3rem);line-height:1.15;margin:.1rem 0 .6rem;letter-spacing:-.01em;
overflow-wrap:anywhere}
h2{font-size:1.35rem;margin:0 0 .7rem}
h3{font-size:1.05rem;margin:1.6rem 0 .4rem}
.kicker{color:var(--mark);font-weight:600;font-size:.85rem;margin:0}
.lede{font-size:1.1rem;margin:0 0 1.2rem}
p,.findings li,ul.note,dl.words{max-width:46rem}
p{margin:.6rem 0}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,14rem),1fr));gap:.7rem 1.6rem;
margin:0 0 1.2rem;padding:1rem 0;border-block:1px solid var(--line)}
.facts .long{grid-column:1/-1}.whole{white-space:nowrap}
.facts dt{color:var(--soft);font-size:.85rem}.facts dd{margin:0;overflow-wrap:anywhere}
dl.words{margin:0}.words dt{font-weight:600;margin-top:.7rem}.words dd{margin:.1rem 0 0}
nav{margin:1rem 0 0;padding:.6rem 0;border-block:1px solid var(--line)}
nav ul{display:flex;flex-wrap:wrap;gap:.1rem 1.2rem;margin:0;padding:0;list-style:none;font-size:.92rem}
nav a{display:inline-block;padding:.25rem 0;color:var(--mark);text-underline-offset:.2em}
:focus-visible{outline:2px solid var(--mark);outline-offset:2px}
section{margin-top:2.8rem;scroll-margin-top:1rem}
.findings{padding-left:1.3rem;margin:0}.findings li{margin:.45rem 0}.findings li::marker{color:var(--soft)}
.findings li:first-child{font-weight:600}
.note{color:var(--soft);font-size:.9rem}ul.note{padding-left:1.1rem}
.warn{border-left:3px solid #d55e00;padding:.1rem 0 .1rem .8rem}
.scroll{overflow-x:auto;width:fit-content;max-width:100%;border-block:1px solid var(--line);margin:.6rem 0}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
table.plain{width:auto;min-width:min(100%,30rem)}.scroll:has(.ranked,.worded){width:auto}
th,td{padding:.45rem .7rem;text-align:right;white-space:nowrap}
thead th{color:var(--soft);font-weight:500;font-size:.84rem;vertical-align:bottom;white-space:normal;min-width:4.2rem;
max-width:9rem}
tbody tr{border-top:1px solid var(--line)}
th:first-child{text-align:left;position:sticky;left:0;background:var(--page)}
.ranked tbody tr:first-child>*{font-weight:600}
.worded td:last-child,.worded thead th:last-child{text-align:left;white-space:normal;min-width:16rem}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem;margin:1rem 0}
figure{margin:1rem 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem .8rem .5rem;margin:0}
figcaption{display:flex;flex-wrap:wrap;gap:0 .8rem;align-items:baseline;margin-bottom:.3rem}
figcaption span{color:var(--soft);font-size:.88rem}figcaption .whole{font-size:1em}
svg{display:block;width:100%;height:auto}
.card svg{max-width:34rem}
svg text{font-family:inherit;fill:var(--ink)}
.narrow{display:none}
.formula{margin:.4rem 0;padding:.2rem 0;overflow-x:auto;overflow-y:hidden}
math{font-size:1.08rem}.formula math{display:block;margin:.25rem 0}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;overflow-x:auto;
font:.86rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.9em;overflow-wrap:anywhere}
footer{margin-top:3rem;color:var(--soft);font-size:.85rem;border-top:1px solid var(--line);padding-top:.8rem}
@media (max-width:640px){.wide{display:none}.narrow{display:block}main{padding:1.3rem .9rem 2rem}
section{margin-top:2.2rem}th,td{padding:.4rem .5rem}.worded td:last-child{min-width:13rem}}
@media print{@page{margin:16mm 14mm}nav{display:none}main{max-width:none;padding:0}
html{font-size:10pt}body{font-size:1rem;color:#000;background:#fff}section{margin-top:1.4rem}
.card,figure,tr,pre,.formula,li,.facts,.scroll,dd{break-inside:avoid}h2,h3,thead,dt,.formula{break-after:avoid}
p:has(+pre),p:has(+.scroll),p:has(+.grid),p:has(+figure),p:has(+.formula){break-after:avoid}
.facts{grid-template-columns:repeat(4,1fr)}
p,.findings li,ul.note,dl.words{max-width:none}p{break-inside:avoid}
.scroll{overflow:visible}.grid{grid-template-columns:1fr 1fr;gap:.6rem}
th,td{padding:.2rem .3rem}thead th{min-width:0}table{font-size:8pt}
.ranked{font-size:7pt}.ranked th,.ranked td{padding:.2rem .15rem}.ranked thead th{font-size:7pt}
table.plain{min-width:0}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:8pt}th:first-child{position:static}
a[href^=http]::after{content:" (" attr(href) ")"}}
"""
