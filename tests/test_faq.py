"""What the FAQ quotes of this package's messages is what the package or one of its tools says."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
# said by mmengine, torch and Python
FOREIGN = (
    'is not in the mmdet::model registry',
    'Weights only load failed',
    "No module named 'pkg_resources'",
    'cannot import name',
    'There are multiple evaluation results with the same metric name',
    '"input_shape" and "inputs" cannot be both set',
    'class information is not provided',
    'Expected more than 1 value per channel when training',
    'Guard failed',
    'You marked',
    'Output 0 of BackwardHookFunctionBackward',
    'symbolically traced variables',
)


def messages():
    """Every run of constant text in the strings of the package and its tools."""
    for path in (path for folder in ('mmpool_ext', 'tools') for path in (ROOT / folder).rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_quoted_messages_are_real():
    said = [text for text in (re.sub(r'^\w+: ', '', text).strip() for text in messages()) if len(text) >= 18]
    headings = [' '.join(quote.split()) for quote in re.findall(r'^\*\*`([^`]+)`', (ROOT / 'docs/faq.md').read_text(), re.M)]
    assert len(headings) >= 12
    for quote in (re.sub(r'^\w+: ', '', heading) for heading in headings):
        assert any(text in quote or quote in text for text in [*said, *FOREIGN]), quote
