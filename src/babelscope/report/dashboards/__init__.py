"""What single neurons and features of a language do: when they fire, what they write, what is lost without them."""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.report.dashboards.dashboard_page import write_dashboard
    from babelscope.report.dashboards.describing import describe_units
    from babelscope.report.dashboards.unit_dashboard import FiringContext, UnitDashboard, UnitDescription

__all__ = ["FiringContext", "UnitDashboard", "UnitDescription", "describe_units", "write_dashboard"]

__getattr__, __dir__ = lazy_names(__name__)
