"""msgspec 0.22 frees what it does not own where a `str` with a pattern shares a union with a list:
the interpreter dies. No struct that is filled from outside may be declared so."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Annotated

import pytest
from msgspec import Meta, Struct
from msgspec.inspect import (
    CollectionType,
    DictType,
    StrType,
    StructType,
    TupleType,
    Type,
    UnionType,
    type_info,
)

import inferd_daemon.config
import inferd_daemon.engines
import inferd_daemon.fronts.http
import inferd_proto

PACKAGES = [
    inferd_daemon.config,
    inferd_daemon.engines,
    inferd_daemon.fronts.http,
    inferd_proto,
]
NOT_OURS_TO_LOAD = {"inferd_daemon.engines.libllama.server"}
"""Loads llama.cpp; its structs are those of `libllama_control`."""
CONTAINERS = (CollectionType, TupleType, DictType, StructType)


def structs(package: ModuleType) -> list[type[Struct]]:
    """All that the modules of `package` define."""
    found: dict[str, type[Struct]] = {}
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if info.name in NOT_OURS_TO_LOAD:
            continue
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            if (
                inspect.isclass(value)
                and issubclass(value, Struct)
                and value.__module__ == info.name
            ):
                found[f"{info.name}.{value.__qualname__}"] = value
    return list(found.values())


def parts(type_: Type, seen: set[int]) -> Iterator[Type]:
    """`type_` and every type inside it, of fields, items, keys and the members of unions."""
    if id(type_) in seen:
        return
    seen.add(id(type_))
    yield type_
    for name in type_.__struct_fields__:
        value = getattr(type_, name)
        for item in value if isinstance(value, tuple) else [value]:
            inner = getattr(item, "type", item)  # of the fields of a struct
            if isinstance(inner, Type):
                yield from parts(inner, seen)


def deadly(struct: type[Struct]) -> list[UnionType]:
    """The unions in `struct` in which a patterned string stands beside a container."""
    return [
        part
        for part in parts(type_info(struct), set())
        if isinstance(part, UnionType)
        and any(isinstance(member, StrType) and member.pattern for member in part.types)
        and any(isinstance(member, CONTAINERS) for member in part.types)
    ]


PATTERNED = Annotated[str, Meta(pattern="^a")]


class Inner(Struct):
    items: dict[str, list[PATTERNED | list[str]]]


class Outer(Struct):
    inner: Inner | None


class Direct(Struct):
    value: PATTERNED | dict[str, int] | None


class Fine(Struct):
    value: PATTERNED | None
    items: list[PATTERNED] | None
    plain: str | list[PATTERNED]


@pytest.mark.parametrize(("struct", "count"), [(Inner, 1), (Outer, 1), (Direct, 1), (Fine, 0)])
def test_the_search_finds_it_at_any_depth(struct: type[Struct], count: int) -> None:
    assert len(deadly(struct)) == count


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_no_struct_holds_what_kills_the_interpreter(package: ModuleType) -> None:
    found = structs(package)
    assert len(found) > 10
    assert {struct.__qualname__: deadly(struct) for struct in found if deadly(struct)} == {}


def test_the_search_reaches_every_table_of_the_configuration() -> None:
    reached = {
        part.cls
        for part in parts(type_info(inferd_daemon.config.Config), set())
        if isinstance(part, StructType)
    }
    apart = {"BootFields", "Mistake", "Places", "Draft"}
    wanted = {
        struct for struct in structs(inferd_daemon.config) if struct.__qualname__ not in apart
    }
    assert reached >= wanted
