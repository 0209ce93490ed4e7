"""Table: the type of a pandas data frame in signatures, without an import of pandas.

Kedro evaluates the annotations of every node when it registers a pipeline. An annotation with the real pandas class
would add the import time of pandas, 0.3 s, to every start, also to stages that use no table.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["Table"]

if TYPE_CHECKING:
    from pandas import DataFrame as Table
else:
    Table = Any
