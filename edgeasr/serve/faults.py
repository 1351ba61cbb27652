"""What went wrong in a group of tasks."""

from __future__ import annotations

from edgeasr.errors import EdgeasrError


def first_fault(group: BaseExceptionGroup[EdgeasrError]) -> EdgeasrError:
    """The first of the errors in a group of groups: the one that ended the others."""
    error = group.exceptions[0]
    return first_fault(error) if isinstance(error, BaseExceptionGroup) else error
