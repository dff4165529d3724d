"""From a plan to what its requests are made with; pure, so that every face can show a request before it is sent."""

from batchrun import prompts
from batchrun.models import Kind
from batchrun.plan.record import Plan
from batchrun.prompts import Prompt, Renderer


def plain_renderer(plan: Plan, prompt: Prompt | None) -> Renderer:
    """The renderer that the plan's requests come from, without what a budget adds."""
    if plan.kind is Kind.BATCH:
        return prompts.batch_renderer()
    if prompt is None:
        return prompts.body_renderer(
            endpoint=plan.endpoint, model=plan.model, params=plan.params, id_column=plan.id_column
        )
    return prompts.renderer(
        prompt,
        endpoint=plan.endpoint,
        model=plan.model,
        params=plan.params,
        variables=plan.variables,
        columns=plan.columns,
    )


def prompt_of(plan: Plan) -> Prompt | None:
    """The prompt of a journaled plan: its source text, never the file of today."""
    if plan.prompt_source is None:
        return None
    return prompts.parse(plan.prompt_source, path=plan.prompt_path or plan.prompt_name or "prompt")
