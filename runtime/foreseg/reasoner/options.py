# SPDX-License-Identifier: Apache-2.0
"""Options of the reasoners over a language model: from a file, checked, and the method they name.

Does not know any reasoner's own options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from foreseg.errors import ConfigError
from foreseg.files import read_file
from foreseg.methods.base import Method
from foreseg.methods.fevos import FevosMethod, FevosSettings
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import Coordinates, View
from foreseg.methods.labels import LabelForm
from foreseg.methods.sa2va import Sa2vaMethod, Sa2vaSettings
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg.methods.videoseg import VideosegMethod, VideosegSettings
from foreseg.methods.visa import VisaMethod, VisaSettings
from foreseg.methods.wording import Wording

MAX_FILE_BYTES = 100_000
METHODS = ("veason", "videoseg", "visa", "fevos", "sa2va")
AUTO = "auto"  # of `coordinates`: as the model's family counts
TEXT_METHODS = ("veason", "videoseg")  # of these, those whose answers are text
DECODING = ("visa", "fevos", "sa2va")  # of these, those whose answers are masks
SAMPLING = ("videoseg", "visa")  # of these, those that choose their frames by asking
TELLING = ("veason", "videoseg", "fevos")  # those that think and can be silent about the budget

Scalar = str | int | float | bool


class OptionRecord(Protocol):
    """A dataclass; its fields are the options."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]


_Options = TypeVar("_Options", bound=OptionRecord)


def options_from_values(
    values: Mapping[str, Scalar], default: _Options, reasoner: str
) -> _Options:
    """Options by name, checked for their types against those of `default`.

    Raises:
        ConfigError: unknown name, or a value of another type.
    """
    known: dict[str, object] = {item.name: getattr(default, item.name) for item in fields(default)}
    for name, value in values.items():
        if name not in known:
            msg = f"the {reasoner} reasoner has the options {', '.join(known)}, got {name!r}"
            raise ConfigError(msg)
        kind = type(known[name])
        is_number = kind is float and isinstance(value, int) and not isinstance(value, bool)
        if type(value) is not kind and not is_number:
            shown = "something else" if "key" in name else repr(value)
            msg = f"the {reasoner} reasoner's {name} wants {kind.__name__}, got {shown}"
            raise ConfigError(msg)
    return replace(default, **values)


def values_from_file(path: str, reasoner: str) -> Mapping[str, Scalar]:
    """Options from a JSON object; files that it names are sought beside it.

    Such are the values of names that end in `_file`, and what begins with `./` or `../`.

    Raises:
        ConfigError: no such file, or no JSON object of plain values.
    """
    if not path:
        msg = f"the reasoner kind {reasoner}:FILE wants a JSON file of options, got none"
        raise ConfigError(msg)
    place = Path(path).expanduser()
    try:
        value: object = json.loads(read_file(place, MAX_FILE_BYTES))
    except OSError as error:
        msg = f"the settings of the {reasoner} reasoner cannot be read: {error}"
        raise ConfigError(msg) from error
    except (ValueError, RecursionError) as error:
        msg = f"the settings of the {reasoner} reasoner in {path!r} are no JSON: {error}"
        raise ConfigError(msg) from error
    if not isinstance(value, dict):
        msg = f"{path!r} wants a JSON object of options, got a {type(value).__name__}"
        raise ConfigError(msg)
    values: dict[str, Scalar] = {}
    for name, item in value.items():
        if not isinstance(item, (str, int, float, bool)):
            msg = f"{path!r} wants a plain value for {name!r}, got a {type(item).__name__}"
            raise ConfigError(msg)
        is_beside = isinstance(item, str) and item.startswith(("./", "../"))
        is_file = is_beside or (name.endswith("_file") and isinstance(item, str) and item)
        values[name] = str(place.parent / Path(str(item)).expanduser()) if is_file else item
    return values


def coordinates_from_name(name: str) -> Coordinates:
    """How a model counts places.

    Raises:
        ConfigError: in no known way.
    """
    kinds = [kind.value for kind in Coordinates]
    if name not in kinds:
        msg = f"coordinates wants one of {', '.join((AUTO, *kinds))}, got {name!r}"
        raise ConfigError(msg)
    return Coordinates(name)


def form_from_name(name: str) -> Form:
    """The form in which a completion is asked for.

    Raises:
        ConfigError: in no known one.
    """
    forms = [form.value for form in Form]
    if name not in forms:
        msg = f"form wants one of {', '.join(forms)}, got {name!r}"
        raise ConfigError(msg)
    return Form(name)


def labels_from_name(name: str) -> LabelForm:
    """What frame labels count.

    Raises:
        ConfigError: in no known way.
    """
    kinds = [kind.value for kind in LabelForm]
    if name not in kinds:
        msg = f"labels wants one of {', '.join(kinds)}, got {name!r}"
        raise ConfigError(msg)
    return LabelForm(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodOptions:
    """What can be said about a method, beside how it is shown frames.

    Attributes:
        method: one of `METHODS`.
        fast: numbers for a stream, of a method with a sampler.
        num_frames: of a method without one; 0: its own.
        num_key_frames: videoseg: of the key segment, in the last request; 0: its own.
        num_reference_frames: videoseg: likewise from elsewhere; -1: its own.
        decode_side_px: visa, fevos: of the frames on which [SEG] is decoded, at most; 0: its own.
        span_s: the last so many seconds are looked at; 0: all that the history has.
        pins_frames: veason: frames stay at their places in time from asking to asking, so that a model
            which keeps what it has read reads little.
        form: a `Form`'s name, the only one that the model knows; empty: the method's own.
        tells_budget: all but visa and sa2va: whether the words say how long the thoughts may be.
        keeps_to_grammar: veason in its own words: its model can say nothing but whole answers about
            frames that are shown, where the decoder is in this process.
        forces_token: visa, fevos: as the model's folder says, no option of a user's.
    """

    method: str = "veason"
    fast: bool = False
    num_frames: int = 0
    num_key_frames: int = 0
    num_reference_frames: int = -1
    decode_side_px: int = 0
    span_s: float = 0.0
    pins_frames: bool = False
    form: str = ""
    tells_budget: bool = True
    keeps_to_grammar: bool = False
    forces_token: bool = True


def method_from_options(
    options: MethodOptions, view: View, wording: Wording | None = None
) -> Method:
    """A method by its name, which is shown frames as `view` has it.

    Args:
        options: of the method.
        view: of the frames.
        wording: of a method in `TEXT_METHODS`: a published model's words, in place of its own.

    Raises:
        ConfigError: no such method or form, or an option of another method.
    """
    name = options.method
    _check_option_of_method(options, view)
    if options.keeps_to_grammar and (name != "veason" or wording is not None):
        msg = f"keeps_to_grammar is for the method veason in its own words, got {name}"
        msg += "" if wording is None else " in a published model's"
        raise ConfigError(msg)
    span = options.span_s or None
    chosen = form_from_name(options.form) if options.form else None
    if name == "videoseg":
        make = VideosegSettings.fast if options.fast else VideosegSettings
        own = make(span_s=span, view=view)
        references = options.num_reference_frames
        return VideosegMethod(
            replace(
                own,
                form=chosen,
                tells_budget=options.tells_budget,
                num_key_frames=options.num_key_frames or own.num_key_frames,
                num_reference_frames=own.num_reference_frames if references < 0 else references,
                wording=wording,
            )
        )
    if name in DECODING:
        return _decoding_method(options, view, chosen)
    shown = options.num_frames or VeasonSettings().num_frames
    return VeasonMethod(
        VeasonSettings(
            num_frames=shown,
            span_s=span,
            pins_frames=options.pins_frames,
            view=view,
            form=chosen,
            tells_budget=options.tells_budget,
            wording=wording,
            keeps_to_grammar=options.keeps_to_grammar,
        )
    )


def _decoding_method(options: MethodOptions, view: View, form: Form | None) -> Method:
    """One of `DECODING`."""
    name, span = options.method, options.span_s or None
    if name == "visa":
        choose = VisaSettings.fast if options.fast else VisaSettings
        settings = choose(span_s=span, view=view)
        decoded = options.decode_side_px or settings.decode_side_px
        return VisaMethod(
            replace(
                settings,
                form=form or settings.form,
                decode_side_px=decoded,
                forces_token=options.forces_token,
            )
        )
    if name == "sa2va":
        return Sa2vaMethod(
            Sa2vaSettings(
                num_frames=options.num_frames or Sa2vaSettings().num_frames,
                span_s=span,
                view=view,
                decode_side_px=options.decode_side_px or Sa2vaSettings().decode_side_px,
            )
        )
    return FevosMethod(
        FevosSettings(
            num_frames=options.num_frames or FevosSettings().num_frames,
            span_s=span,
            view=view,
            form=form,
            tells_budget=options.tells_budget,
            forces_token=options.forces_token,
            decode_side_px=options.decode_side_px or FevosSettings().decode_side_px,
        )
    )


def _check_option_of_method(options: MethodOptions, view: View) -> None:
    """Refuse an option of another method."""
    name, default = options.method, MethodOptions()
    if name not in METHODS:
        msg = f"method wants one of {', '.join(METHODS)}, got {name!r}"
        raise ConfigError(msg)
    if options.fast and name not in SAMPLING:
        msg = f"fast is for the methods {' and '.join(SAMPLING)}: {name} asks only once"
        raise ConfigError(msg)
    if options.num_frames and name in SAMPLING:
        others = " and ".join(other for other in METHODS if other not in SAMPLING)
        msg = f"num_frames is for the methods {others}: {name}'s sampler chooses its frames"
        raise ConfigError(msg)
    for option in ("num_key_frames", "num_reference_frames"):
        if name != "videoseg" and getattr(options, option) != getattr(default, option):
            msg = f"{option} is for the method videoseg, got {getattr(options, option)} for {name}"
            raise ConfigError(msg)
    if options.num_key_frames < 0 or options.num_reference_frames < -1:
        msg = (
            "num_key_frames wants at least 0 and num_reference_frames at least -1, got"
            f" {options.num_key_frames} and {options.num_reference_frames}"
        )
        raise ConfigError(msg)
    if name == "sa2va" and options.form not in ("", Form.BARE.value):
        msg = (
            f"form is not for the method sa2va, whose words are its publisher's: {options.form!r}"
        )
        raise ConfigError(msg)
    if options.decode_side_px and name not in DECODING:
        msg = f"decode_side_px is for the methods {' and '.join(DECODING)}, got {name}"
        raise ConfigError(msg)
    if options.pins_frames and name != "veason":
        msg = f"pins_frames is for the method veason, got {name}"
        raise ConfigError(msg)
    if not options.tells_budget and name not in TELLING:
        msg = f"tells_budget is for the methods {' and '.join(TELLING)}, got {name}"
        raise ConfigError(msg)
    if view.labels is not LabelForm.ABSOLUTE and name != "veason":
        msg = f"labels by rank are for the method veason, got {name}"
        raise ConfigError(msg)
