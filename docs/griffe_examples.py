"""griffe extension: our docstrings say ``Example:``, which Google's format knows as ``Examples:``."""

import re

import griffe


class Examples(griffe.Extension):
    """Rename the section, so that its doctests are shown as code."""

    def on_object(self, *, obj, **kwargs):
        """Edit one docstring."""
        if obj.docstring:
            obj.docstring.value = re.sub(r'^Example:(?: \(.*\))?$', 'Examples:', obj.docstring.value, flags=re.MULTILINE)
