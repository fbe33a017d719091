"""The page's style sheet: colours for light, dark and paper stand here and nowhere else."""

_LIGHT = (
    "--bg:#ffffff;--panel:#f6f8fa;--text:#1f2328;--dim:#57606a;--rule:#d8dee4;--grid:#e4e8ec;--axis:#b6bec7;"
    "--used:#2f6fb3;--limit:#c2410c;--original:#8a939d;--omega:#57606a;--would:#15803d;--throttled:#a21caf;"
    "--bad:#b42318;--link:#2f6fb3"
)
_DARK = (
    "--bg:#0f1419;--panel:#171d24;--text:#e6e9ec;--dim:#9aa5b1;--rule:#2c353f;--grid:#242c35;--axis:#46525f;"
    "--used:#6cb0f5;--limit:#fb923c;--original:#7d8894;--omega:#c3cbd3;--would:#4ade80;--throttled:#e879f9;"
    "--bad:#ff8a80;--link:#6cb0f5"
)

_COLOURED = ("used", "limit", "original", "omega", "would", "throttled")

CSS = (
    f":root{{color-scheme:light dark;{_LIGHT}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--bg);color:var(--text);"
    "font:14px/1.45 system-ui,'DejaVu Sans','Liberation Sans',Arial,sans-serif}"
    "header,main,footer{max-width:1240px;margin:0 auto;padding:0 24px}header{padding-top:20px}"
    "h1{font-size:22px;margin:0}h2{font-size:20px;margin:28px 0 0;overflow-wrap:anywhere}"
    "h3{font-size:15px;margin:26px 0 8px}p{margin:4px 0}"
    ".dim,footer{color:var(--dim)}.small{font-size:12px}footer{font-size:12px;margin-top:32px;padding-bottom:32px}"
    "nav{margin-top:10px}nav a{color:var(--link);margin-right:14px;overflow-wrap:anywhere}"
    "section+section{border-top:1px solid var(--rule);margin-top:36px}"
    ".headline{font-size:18px;font-weight:600;margin:12px 0 4px;max-width:900px}"
    # Six of them: in one row, two or three, and none alone in a row.
    ".tiles{display:grid;grid-template-columns:repeat(6,1fr);gap:12px;margin:16px 0}"
    "@media screen and (max-width:959px){.tiles{grid-template-columns:repeat(3,1fr)}}"
    "@media screen and (max-width:519px){.tiles{grid-template-columns:repeat(2,1fr)}}"
    ".tile{background:var(--panel);border:1px solid var(--rule);border-radius:8px;padding:10px 12px}"
    ".tile span{display:block;color:var(--dim);font-size:12px}.tile b{font-size:19px;white-space:nowrap}"
    ".two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:16px}"
    ".three{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:16px}"
    # One card alone has the whole width, and its two pictures side by side.
    ".three figure:only-child{grid-column:1/-1}.three figure:only-child .pictures{display:grid;"
    "grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:0 28px}"
    "figure{margin:0;border:1px solid var(--rule);border-radius:8px;padding:10px 12px;min-width:0}"
    "figcaption{margin-bottom:6px;font-weight:600;overflow-wrap:anywhere}.three figcaption{font-weight:400}"
    ".key{font-weight:400;font-size:12px;color:var(--dim);white-space:nowrap;margin-left:10px}"
    ".three .key:first-of-type{margin-left:0}"
    ".key::before{content:'';display:inline-block;width:14px;border-top:3px solid;margin-right:5px;"
    "vertical-align:3px}"
    + "".join(f".key.{kind}::before{{border-color:var(--{kind})}}" for kind in _COLOURED)
    + ".key.omega::before{border-top-style:dashed}.key.original::before{border-top-style:dotted}"
    "svg.chart{display:block;width:100%;height:auto}"
    "svg.chart text{font:11px system-ui,'DejaVu Sans','Liberation Sans',Arial,sans-serif;fill:var(--dim)}"
    ".grid{stroke:var(--grid);fill:none}.axis{stroke:var(--axis);fill:none}"
    ".line{fill:none;stroke-width:1.8;stroke-linejoin:round}.area{stroke:none;fill-opacity:.2}"
    + "".join(f".line.{kind}{{stroke:var(--{kind})}}.area.{kind}{{fill:var(--{kind})}}" for kind in _COLOURED)
    + ".line.omega{stroke-dasharray:6 4}.line.original{stroke-dasharray:2 3}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:12.5px}"
    "th,td{text-align:left;padding:4px 8px;border-bottom:1px solid var(--rule);vertical-align:top}"
    "th{color:var(--dim);font-weight:600;white-space:nowrap}th.g{text-align:center;border-bottom:0}"
    ".n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}th.n{text-align:right}"
    ".t{white-space:nowrap}.name{overflow-wrap:anywhere;min-width:7em;max-width:22em}"
    ".bad,tr.bad td{color:var(--bad)}"
    ".tag{border:1px solid var(--would);color:var(--would);border-radius:4px;padding:0 5px;font-size:11px;"
    "white-space:nowrap}"
    "@media print{body{font-size:11px}figure,.tile,tr{break-inside:avoid}h2,h3{break-after:avoid}"
    "section+section{break-before:page;border-top:0}thead{display:table-header-group}.wide{overflow:visible}"
    "header,main,footer{max-width:none;padding:0}.tiles{gap:8px}.tile{padding:8px}.tile b{font-size:14px}"
    ".tile span,.key,.small,footer{font-size:10px}.two{grid-template-columns:1fr 1fr}"
    ".three{grid-template-columns:repeat(3,1fr)}"
    "table{font-size:9px}th,td{padding:3px}.name{min-width:4em}}"
)
