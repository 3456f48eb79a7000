import pytest
from babelscope_kernels.names import NAMES
from kernel_runs import python


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_configuration_compiles_for_sm90_without_spills(name):
    rows = python("babelscope_kernels.sm90", name)
    assert rows and not [fault for row in rows for fault in row["faults"]]
    assert all(row["shared_bytes"] <= 232_448 and row["stack_bytes"] == 0 for row in rows)
    assert len({row["name"] for row in rows}) == len(rows)
