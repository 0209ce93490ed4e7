"""Table: the type of a data frame in signatures, without importing pandas.

Kedro reads the annotations of every node when a pipeline is registered; a real pandas annotation would cost 0.3 s
at each start, also of stages that never touch a table.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["Table"]

if TYPE_CHECKING:
    from pandas import DataFrame as Table
else:
    Table = Any
