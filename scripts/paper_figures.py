"""Compute the three figures of arXiv 2211.08771 anew: python scripts/paper_figures.py linear|subspace|angle.

Each writes docs/figures/NAME.svg and the numbers into docs/theory/paper_figures.md, between the marks of that figure.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from fiberscope.meanfield import angle_flow, linear_flow_of, log_times  # noqa: E402
from fiberscope.pages.charts import Curve, Level, legend, line_chart  # noqa: E402

PAGE = ROOT / "docs" / "theory" / "paper_figures.md"
ASSETS = ROOT / "src" / "fiberscope" / "pages" / "assets"
COLOURS = re.compile(r"(--[\w-]+):\s*light-dark\(([^,]+),[^;]*\);")


def linear() -> tuple[list[str], str]:
    """An odd target: a data set of 100 points in dimension 60, labels linear in the inputs."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(100, 60))
    truth = rng.normal(size=60)
    truth *= 3 / np.linalg.norm(truth)
    times = np.linspace(0, 100, 1001)
    flow = linear_flow_of(inputs, inputs @ truth, None, times, slope=0.5)
    far = np.linalg.norm(flow.w - flow.w_star, axis=1) / np.linalg.norm(flow.w_star)
    bound = flow.gap[0] * np.exp(-flow.rate_bound * times)
    charts = [
        chart("distance to the best linear predictor", times, [Curve("|w(t) - w*| / |w*|", far.tolist())], log=True),
        chart("excess risk", times, [Curve("risk - least risk", flow.gap.tolist()),
                                     Curve("proved bound", bound.tolist(), "bound")], log=True),
    ]  # fmt: skip
    rows = ["| t | \\|w - w*\\| / \\|w*\\| | excess risk | proved bound |", "|---|---|---|---|"]
    rows += [f"| {times[k]:g} | {far[k]:.6e} | {flow.gap[k]:.6e} | {bound[k]:.6e} |" for k in (0, 10, 50, 200, 1000)]
    rows += ["", f"Rates of the excess risk: proved {flow.rate_bound:.6g}, asymptotic {flow.rate_asymptotic:.6g}, "
                 f"fitted {flow.rate_measured:.6g}."]  # fmt: skip
    return charts, "\n".join(rows)


def subspace() -> tuple[list[str], str]:
    """The predictor off the subspace: f(u_H + r e_perp) for |u_H| = 1, d = 20, dH = 5."""
    steps = (20, 100, 200, 500, 1000, 4999)
    flow = angle_flow(20, 5, [step * 0.05 * 20 for step in steps], nodes=64, method="DOP853", rtol=1e-11)
    offs = np.linspace(0, 5, 101)
    values = (flow.predict(np.arctan(offs)) * np.hypot(1, offs)).round(12) + 0.0
    curves = [
        Curve(f"t = {t:g}", row.tolist(), f"l{k % 6}")
        for k, (t, row) in enumerate(zip(flow.times, values, strict=True))
    ]
    charts = [chart("predictor at distance r from H", offs, curves, axis="distance r", levels=[Level("target", 1.0)])]
    shown = [0, 25, 50, 75, 100]
    rows = ["| t | " + " | ".join(f"r = {offs[k]:g}" for k in shown) + " |", "|---" * (len(shown) + 1) + "|"]
    rows += [
        f"| {t:g} | " + " | ".join(f"{row[k] + 0.0:.8f}" for k in shown) + " |"
        for t, row in zip(flow.times, values, strict=True)
    ]
    return charts, "\n".join([*rows, "", errors(flow.refine().error)])


def angle() -> tuple[list[str], str]:
    """Masses, distances and risk, d = 30, dH = 5, to time 3000."""
    times = log_times(1.5, 3000, 120)
    flow = angle_flow(30, 5, times, nodes=48)
    clock = flow.times
    masses = [Curve("m+", flow.mass_plus.tolist(), "plus"), Curve("m-", flow.mass_minus.tolist(), "minus")]
    charts = [
        chart("masses", clock, masses,
              levels=[Level("alpha", flow.alpha), Level("t*", flow.critical_time, across=True)]),
        chart("W2 distance to the limits", clock, [Curve("tau+ to angle 0", flow.w2_plus.tolist(), "plus"),
                                                   Curve("tau- to pi/2", flow.w2_minus.tolist(), "minus")], log=True),
        chart("risk", clock, [Curve("F", flow.energy.tolist())], log=True),
    ]  # fmt: skip
    shown = angle_flow(30, 5, [0, 1.5, 15, 75, 150, 300, 750, 1500, 3000], nodes=48)
    rows = ["| t | m+ | m- | W2+ | W2- | F |", "|---|---|---|---|---|---|"]
    rows += [
        f"| {t:g} | {a:.8f} | {b:.8f} | {c:.8f} | {e:.8f} | {f:.6e} |"
        for t, a, b, c, e, f in zip(shown.times, shown.mass_plus, shown.mass_minus, shown.w2_plus, shown.w2_minus,
                                    shown.energy, strict=True)
    ]  # fmt: skip
    top = flow.overshoot()["first_peak"]
    told = f"alpha = {flow.alpha:.8f}; m+ reaches it at t* = {flow.critical_time:.4f}; "
    told += f"the first maximum of m+ - alpha is {top['excess']:.6f} at t = {top['time']:.1f}. "
    return charts, "\n".join([*rows, "", told + errors(shown.refine().error)])


def errors(found: dict[str, float] | None) -> str:
    """The largest change under refinement."""
    worst = max((found or {}).items(), key=lambda pair: pair[1])
    return f"Largest change under refinement: {worst[1]:.1e} ({worst[0]})."


def chart(title: str, places: Sequence[float], curves: list[Curve], axis: str = "", **options: object) -> str:
    """One chart as the inside of an SVG, its legend above."""
    drawn = line_chart(title, [float(t) for t in places], curves, **options)  # type: ignore[arg-type]
    found = re.search(r"<svg[^>]*class=\"plot\".*?</svg>", str(drawn), re.DOTALL)
    assert found is not None and str(legend(curves))
    body = found[0][found[0].index(">") + 1 : -len("</svg>")]
    body = re.sub(r"<line[^>]* hidden[^>]*>(?:<title>[^<]*</title>)?</line>|<line[^>]* hidden[^>]*/>", "", body)
    if axis:
        body = re.sub(r"time t\b", axis, body)
    keys, x = [], 50.0
    for curve in curves:
        keys.append(f'<line class="line {curve.look}" x1="{x}" x2="{x + 20}" y1="-4" y2="-4"/>')
        keys.append(f'<text x="{x + 24}" y="-1">{curve.name}</text>')
        x += max(44.0, 30 + 4.6 * len(curve.name))
    return f'<text class="name" x="4" y="-20" style="font-weight:600">{title}</text>{"".join(keys)}{body}'


def drawing(charts: list[str]) -> str:
    """The charts side by side in one SVG that stands alone."""
    page, style = (ASSETS / "page.css").read_text(), (ASSETS / "charts.css").read_text()
    colours = ";".join(f"{name}:{value}" for name, value in COLOURS.findall(page))
    rules = "".join(line for line in style.splitlines() if re.match(r"\.(line|grid|level|now|cursor|told|axis)", line))
    width, height = 440 * len(charts), 300
    parts = "".join(f'<g transform="translate({440 * k + 10},40)">{part}</g>' for k, part in enumerate(charts))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<style>svg{{{colours};background:#fff}}text{{font:9.5px sans-serif;fill:#1a2030}}"
        f".axis{{stroke:#596274}}[hidden]{{display:none}}{rules}</style>{parts}</svg>\n"
    )


def main() -> int:
    """Compute one figure, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    makers = {"linear": linear, "subspace": subspace, "angle": angle}
    parser.add_argument("figure", choices=[*makers, "all"])
    chosen = parser.parse_args().figure
    text = PAGE.read_text(encoding="utf-8")
    for name in makers if chosen == "all" else [chosen]:
        begin = time.perf_counter()
        charts, table = makers[name]()
        spent = time.perf_counter() - begin
        (ROOT / "docs" / "figures" / f"{name}.svg").write_text(drawing(charts), encoding="utf-8")
        start, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        before, rest = text.split(start)
        text = f"{before}{start}\n\n{table}\n\n{end}{rest.split(end)[1]}"
        print(f"{name}: {spent:.2f} s")
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
