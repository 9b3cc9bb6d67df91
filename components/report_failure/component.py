"""Component: the page that a pipeline leaves when it ends, whatever happened."""

from kfp import dsl

from components.base import component


@component
def report_failure(status: dsl.PipelineTaskFinalStatus, report: dsl.Output[dsl.HTML]):
    """Leave a short page about how the pipeline ended; runs as exit handler, also after a failure.

    Args:
        status: Final status, filled in by the orchestrator.
        report: The HTML page.
    """
    from modelmend import steps

    steps.report_failure(status.state, status.error_message or "", report.path)
