"""A lease's reference on the command line: whole, or refused; pure.

Ending a lease that there is not is no error to the daemon, so a reference that was cut off in
copying would end nothing and look as if it had.
"""

import re

import click

_FORM = re.compile(r"lease-[A-Za-z0-9_-]{24}")


class LeaseRef(click.ParamType):  # type: ignore[type-arg]
    """An argument that has a reference's form and length."""

    name = "lease_ref"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Raises BadParameter in words."""
        text = str(value)
        if _FORM.fullmatch(text) is None:
            self.fail(
                f"{text!r} is not a whole reference, which is lease- and 24 more letters, digits,"
                " - or _; `inferdctl lease ls -q` prints them",
                param,
                ctx,
            )
        return text


LEASE_REF = LeaseRef()
