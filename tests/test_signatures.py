"""Public functions say what they take; ruff sees that they say what they give.

Ruff's ANN001 would ask it of private and inner functions, too.
"""

import ast

from places import ROOT


def unsaid(tree: ast.AST) -> list[str]:
  """Arguments without a type of a module's or a class's public functions."""
  found = []
  for node in ast.iter_child_nodes(tree):
    if getattr(node, "name", "_").startswith("_") and not is_special(node):
      continue
    if isinstance(node, ast.ClassDef):
      found += unsaid(node)
    elif isinstance(node, ast.FunctionDef):
      of = node.args
      some = [*of.posonlyargs, *of.args, *of.kwonlyargs, of.vararg, of.kwarg]
      names = [x.arg for x in some if x and not x.annotation]
      bare = [x for x in names if x not in ("self", "cls")]
      found += [f"{node.lineno}: {node.name}({x})" for x in bare]
  return found


def is_special(node: ast.AST) -> bool:
  """Such as __call__."""
  return getattr(node, "name", "").endswith("__")


def test_public_functions_say_what_they_take():
  files = sorted((ROOT / "jaxfake").rglob("*.py"))
  assert files
  assert not [
    f"{file.relative_to(ROOT)}:{said}"
    for file in files
    for said in unsaid(ast.parse(file.read_bytes()))
  ]


def test_what_is_unsaid_is_found():
  text = (
    "def f(a, *b, c: int, **d): ...\n"
    "def _g(a):\n  def h(a): ...\n"
    "class C:\n  def __init__(self, a): ...\n  def _k(self, a): ...\n"
  )
  assert unsaid(ast.parse(text)) == [
    "1: f(a)",
    "1: f(b)",
    "1: f(d)",
    "5: __init__(a)",
  ]
