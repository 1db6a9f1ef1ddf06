"""The style sheet of report.html: inline, because the page must stand alone."""

from __future__ import annotations

STYLE = """
:root { --ink: #1f2328; --soft: #59636e; --line: #d0d7de; --ground: #ffffff; --panel: #f6f8fa;
        --good: #1a7f37; --bad: #bc4c00; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--ground);
       font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 40px 0 10px; padding-bottom: 6px; border-bottom: 1px solid var(--line); }
p { margin: 8px 0; max-width: 78ch; }
.soft { color: var(--soft); }
.verdict { margin: 20px 0 16px; padding: 14px 18px; border-left: 5px solid; background: var(--panel); }
.verdict strong { display: block; font-size: 19px; }
.good { border-color: var(--good); } .good strong, td.yes { color: var(--good); }
.bad { border-color: var(--bad); } .bad strong, td.no { color: var(--bad); }
.figures { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; }
.figure { flex: 1 1 190px; padding: 12px 16px; border: 1px solid var(--line); border-radius: 6px; }
.figure b { display: block; font-size: 24px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.figure span { color: var(--soft); font-size: 13px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 6px 12px 6px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
         font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
table.facts th { width: 34%; }
table.attempts td:nth-child(3) { min-width: 180px; }
table.attempts td { min-width: 72px; overflow-wrap: normal; }
img { display: block; max-width: 100%; height: auto; margin: 10px 0; }
pre { margin: 10px 0; padding: 12px 16px; overflow-x: auto; background: var(--panel); border-radius: 6px;
      font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--soft); }
@media print { main { max-width: none; padding: 0; } h2 { break-after: avoid; } img, table { break-inside: avoid; } }
"""
