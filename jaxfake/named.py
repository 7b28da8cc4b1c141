"""Modules that a configuration names: tasks, sources, networks of a GAN.

A name is that of a module of ours, `gan` for jaxfake.generators.gan, or a
dotted one of the user's own, `my_package.my_family`. A contract says what a
module must define (contracts.py). To find one, or to list what there is,
nothing is imported: the source text says what it defines.
"""

import ast
from collections.abc import Iterator
import functools
import importlib
import importlib.util
import pathlib
from types import ModuleType
from typing import Any, NamedTuple

from jaxfake import errors

ROOT = pathlib.Path(__file__).parent


class Named(NamedTuple):
  """A module that is not imported yet."""

  name: str  # As a configuration has it.
  module: str  # As Python has it.
  file: pathlib.Path

  def load(self) -> ModuleType:
    return importlib.import_module(self.module)

  def meets(self, contract: type) -> bool:
    return members(contract) <= _definitions(self.file).keys()

  def defines(self, name: str) -> bool:
    return name in _definitions(self.file)

  def literal(self, name: str) -> Any:
    """The plain value that the module gives a name; None without one."""
    value = _definitions(self.file).get(name)
    return value and ast.literal_eval(value)


def members(contract: type) -> set[str]:
  """What a Protocol, and those it builds on, ask for."""
  names = set()
  for each in contract.__mro__[:-1]:
    if each.__module__ == contract.__module__:
      names |= {*vars(each), *vars(each).get("__annotations__", ())}
  return {x for x in names if not x.startswith("_")} - {"ROOMS"}


@functools.cache
def _definitions(file: pathlib.Path) -> dict[str, ast.expr | None]:
  """Names that a module's text defines; of NAME = value, the value."""
  definitions = {}
  for node in ast.parse(file.read_bytes()).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      definitions[node.name] = None
    elif isinstance(node, ast.Assign):
      definitions |= {
        x.id: node.value for x in node.targets if isinstance(x, ast.Name)
      }
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
      definitions[node.target.id] = node.value
    elif isinstance(node, ast.Import | ast.ImportFrom):
      definitions |= {(x.asname or x.name): None for x in node.names}
  return definitions


def every(*contracts: type) -> Iterator[Named]:
  """Our modules that meet one of some contracts, by room and name."""
  for contract in contracts:
    for room in contract.ROOMS:
      here = ROOT / room
      packages = (x.parent.name for x in here.glob("*/__init__.py"))
      for name in sorted({x.stem for x in here.glob("*.py")}.union(packages)):
        module = _ours(room, name)
        if name.isidentifier() and module.meets(contract):
          yield module


def _ours(room: str, name: str) -> Named:
  """A module of ours; its file need not be there."""
  package = ROOT / room / name / "__init__.py"
  file = package if package.exists() else ROOT / room / f"{name}.py"
  return Named(name, f"jaxfake.{room}.{name}", file)


def find(field: str, name: str, *contracts: type) -> Named:
  """The module that a field names, which meets one of the contracts.

  Raises ConfigError: there is none, or it does not define what it must.
  """
  if "." in name:
    return _of_the_user(field, name, contracts)
  for contract in contracts:
    for room in contract.ROOMS:
      if name.isidentifier():
        module = _ours(room, name)
        if module.file.exists() and module.meets(contract):
          return module
  names = [x.name for x in every(*contracts)]
  raise errors.ConfigError(
    f"{field} is {name!r}: expected one of {', '.join(names)}, or my_package."
    f"my_module{errors.nearest(name, names)}"
  )


def _of_the_user(field: str, name: str, contracts) -> Named:
  try:
    spec = importlib.util.find_spec(name)
  except (ImportError, ValueError) as error:
    spec, why = None, f" ({error})"
  else:
    why = ""
  if spec is None or not spec.origin:
    raise errors.ConfigError(
      f"{field} is {name!r}: there is no such module{why}; expected one in the"
      " folder of the command or on PYTHONPATH"
    )
  here = Named(name, name, pathlib.Path(spec.origin))
  if not any(here.meets(contract) for contract in contracts):
    lacks = [
      f"{', '.join(sorted(members(x) - _definitions(here.file).keys()))} of a"
      f" {x.__name__}"
      for x in contracts
    ]
    raise errors.ConfigError(
      f"{field} is {name!r}: {here.file} does not define {', or '.join(lacks)}"
    )
  return here
