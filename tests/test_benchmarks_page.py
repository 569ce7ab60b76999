"""The figures of the benchmarks' page are those of the committed results."""

import json
from pathlib import Path

DOCS = Path(__file__).parents[1] / 'docs'


def test_figures_are_those_of_the_results():
    rows = json.loads((DOCS / 'benchmarks' / 'classification_cpu.json').read_text())['rows']
    steps, inferences = ({row['contestant']: row for row in rows if row['phase'] == phase} for phase in ('step', 'inference'))
    page, readme = (DOCS / 'benchmarks.md').read_text(), (DOCS.parent / 'README.md').read_text()
    assert len(steps) == 6
    for name, step in steps.items():
        inference = inferences[name]
        line = f'| {name} | {step["ms"]:.0f} | {step["times_slower"]:.2f} | {step["peak_mib"]:.0f} '
        assert line + f'| {inference["ms"]:.0f} | {inference["times_slower"]:.2f} |' in page
    assert f'takes {steps["LIP"]["times_slower"]:.2f} times as long' in readme
