"""mkdocs hooks: pages from the repository's READMEs, checked links to its files, and links from docstrings to the API reference.

README.md is the home page, CHANGELOG.md and CONTRIBUTING.md are pages, and so is every README that a page links to. Other linked files are copied.
Notebooks become pages with the outputs that they were saved with.
So a link that works in the repository works on the pages, and one that leads nowhere is a warning, which ``make docs`` turns into an error.
"""

import ast
import base64
import json
import logging
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {'README.md': 'index.md', 'CHANGELOG.md': 'changelog.md', 'CONTRIBUTING.md': 'contributing.md', 'configs/README.md': 'configs/index.md'}
LINK = re.compile(r'(?<=\]\()(?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))')
CODE = re.compile(r'^```.*?^```$|`[^`\n]+`', re.DOTALL | re.MULTILINE)
ROLE = re.compile(r':(?:class|func|mod|meth|attr):<code>~?([\w.]+)</code>')
log = logging.getLogger('mkdocs.hooks')


def places(path):
    """Where a file of the repository lies in the site."""
    path = path.replace('.ipynb', '.md')
    return PAGES.get(path) or (path.removeprefix('docs/') if path.startswith('docs/') else f'repository/{path}')


def target_of(page, link):
    """The file of the repository that a link leads to; a folder stands for its README."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    if (ROOT / target / 'README.md').is_file():
        target = f'{target}/README.md'
    if not (ROOT / target).is_file():
        log.warning('%s links to %s, which is not in the repository', page, link)
    return target


def replace_links(page, text, replace, made=()):
    """Call ``replace(target, anchor)`` for every relative link outside of code, but to files that were made for the page."""
    codes = [match.span() for match in CODE.finditer(text)]

    def one(match):
        if match[1] in made or any(start <= match.start() < end for start, end in codes):
            return match[0]
        return replace(target_of(page, match[1]), match[2] or '')

    return LINK.sub(one, text)


def convert(notebook):
    """Turn a notebook into markdown and its pictures, ``{file name: bytes}``."""
    parts, pictures = [], {}
    for cell in json.loads(notebook.read_text())['cells']:
        source = ''.join(cell['source'])
        parts.append(source if cell['cell_type'] == 'markdown' else f'```python\n{source}\n```')
        for output in cell.get('outputs', []):
            data = output.get('data', {})
            if 'image/png' in data:
                name = f'{notebook.stem}_{len(pictures)}.png'
                pictures[name] = base64.b64decode(''.join(data['image/png']))
                parts.append(f'![output]({name})')
            elif text := ''.join(output.get('text', data.get('text/plain', ''))):
                parts.append(f'```text\n{text.rstrip()}\n```')
    return '\n\n'.join(parts), pictures


def on_files(files, config):
    """Add the pages and files outside of docs/ that pages link to, and the notebooks."""
    config['extra']['sources'] = sources = {}  # page of the site: file of the repository
    config['extra']['pictures'] = {}  # page of the site: pictures made for it
    readmes = (str(path.relative_to(ROOT)) for path in (ROOT / 'configs').glob('*/README.md'))
    notebooks = (str(path.relative_to(ROOT)) for path in (ROOT / 'docs' / 'notebooks').glob('*.ipynb'))
    waiting = [*PAGES, *readmes, *notebooks, *(f'docs/{file.src_uri}' for file in files.documentation_pages())]
    while waiting:
        path = waiting.pop()
        place = places(path)
        if place in sources or not (ROOT / path).is_file():
            continue
        sources[place] = path
        if path.endswith('.ipynb'):
            text, pictures = convert(ROOT / path)
            files.append(File.generated(config, place, content=text))
            for name, data in pictures.items():
                files.append(File.generated(config, posixpath.join(posixpath.dirname(place), name), content=data))
            replace_links(path, text, lambda target, anchor: waiting.append(target) or '', pictures)
            config['extra']['pictures'][place] = pictures
        elif not path.startswith('docs/'):
            files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
        if path.endswith('.md'):
            replace_links(path, (ROOT / path).read_text(), lambda target, anchor: waiting.append(target) or '')
    return files


def on_page_markdown(markdown, page, config, files):
    """Point links to where the files lie in the site."""
    here = page.file.src_uri

    def link(target, anchor):
        return posixpath.relpath(places(target), posixpath.dirname(here) or '.') + anchor

    return replace_links(config['extra']['sources'][here], markdown, link, config['extra']['pictures'].get(here, ()))


def _public_names():
    names = {}
    for path in (ROOT / 'mmpool_ext').rglob('*.py'):
        if '.mim' in path.parts:
            continue
        module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                names[node.name] = f'{module}.{node.name}'
    return names


NAMES = _public_names()


def on_page_content(html, page, config, files):
    """Turn Sphinx's roles in docstrings into links where the name is in the API reference."""

    def link(match):
        name = match[1].rpartition('.')[2]
        return f'<autoref identifier="{NAMES.get(name, match[1])}" optional><code>{name}</code></autoref>'

    return ROLE.sub(link, html)
