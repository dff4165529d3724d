"""The renderers of a plan's requests."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchrun import media, prompts
from batchrun.display import sizes
from batchrun.models import Endpoint, Kind, Request, Row
from batchrun.plan.outputs import is_document
from batchrun.plan.record import Plan
from batchrun.prompts import Prompt, Renderer


def plain_renderer(plan: Plan, prompt: Prompt | None) -> Renderer:
    if plan.kind is Kind.BATCH:
        return prompts.batch_renderer()
    if prompt is None:
        return prompts.body_renderer(
            endpoint=plan.endpoint, model=plan.model, params=plan.params, id_column=plan.id_column
        )
    whole = _of_prompt(plan, prompt)
    if prompt.files:
        transcribes = plan.endpoint is Endpoint.TRANSCRIPTIONS
        formula = media.formula_of(plan.media, plan.dialect, plan.model)
        return FilesRenderer(
            whole, plan.input, plan.media, transcribes=transcribes, formula=formula, detail=plan.detail
        )
    return _SegmentRenderer(plan, prompt, whole) if is_document(plan.input_format) else whole


def _of_prompt(plan: Plan, prompt: Prompt) -> "prompts.PromptRenderer":
    return prompts.renderer(
        prompt,
        endpoint=plan.endpoint,
        model=plan.model,
        params=plan.params,
        variables=plan.variables,
        columns=plan.columns,
        detail=plan.detail,
    )


class FilesRenderer:
    def __init__(  # noqa: PLR0913  what decides about files, by name
        self,
        plain: "prompts.PromptRenderer",
        source: str,
        takes: Mapping[str, Any],
        *,
        transcribes: bool = False,
        formula: media.Formula | None = None,
        detail: str | None = None,
    ) -> None:
        self._takes = takes
        if transcribes:
            own = {name.replace("transcription", "audio"): takes[name] for name in takes if name.startswith("transc")}
            self._takes = {**takes, **own}
        self._plain = plain
        self._formula, self._detail = formula, detail
        place = Path(source).expanduser()
        beside = place if place.is_dir() else place.parent
        self._folders = tuple(dict.fromkeys([beside, Path()]))

    def render(self, row: Row) -> Request:
        """Raises RenderError, also for a file that is missing or not accepted."""
        if row.files is None:
            try:
                values = self._plain.file_values(row)
                found = [file for value in values for file in media.look(*value, self._folders, self._takes)]
            except media.MediaError as error:
                raise prompts.RenderError(error.message, error.hint) from None
            row = row._replace(files=tuple(found))
        request = self._plain.render(row)
        most = self._takes.get("request_bytes")
        if most is not None and request.size > most:
            size, limit = sizes(request.size, most)
            raise prompts.RenderError(f"the request has {size} with its files; the provider accepts at most {limit}")
        tokens = None if self._formula is None else self._formula.of(request.files, self._detail)
        return request if not tokens else request._replace(file_tokens=tokens)


class _SegmentRenderer:
    # plural forms are requested as an object

    def __init__(self, plan: Plan, prompt: Prompt, plain: Renderer) -> None:
        self._plan = plan
        self._prompt = prompt
        self._plain = plain
        self._plural: dict[tuple[tuple[str, str], ...], Renderer] = {}

    def render(self, row: Row) -> Request:
        forms: dict[str, str] | None = row.fields.get("forms")
        if not forms:
            return self._plain.render(row)
        key = tuple(forms.items())
        if key not in self._plural:
            prompt = replace(self._prompt, outputs=prompts.forms_schema(forms))
            self._plural[key] = _of_prompt(self._plan, prompt)
        return self._plural[key].render(row)


def prompt_of(plan: Plan) -> Prompt | None:
    if plan.prompt_source is None:
        return None
    return prompts.parse(plan.prompt_source, path=plan.prompt_path or plan.prompt_name or "prompt")


def sharing_of(
    plan: Plan, prompt: Prompt | None, *, batch: bool = False
) -> "tuple[prompts.PromptRenderer, prompts.Caching] | None":
    if prompt is None or plan.kind is not Kind.ROWS or plan.cache == "off":
        return None
    return _of_prompt(plan, prompt), prompts.caching_of(
        plan.dialect, plan.model, plan.endpoint, plan.params, batch=batch
    )


def spelling_of(plan: Plan, prompt: Prompt | None) -> prompts.Spelling | None:
    return None if prompt is None else prompts.spelling_of(plan.requests, prompt, plan.params)
