"""What the ``<command>`` of a Galaxy tool says: which commands it calls with which options, and what reaches the shell how.

Cheetah is read from top to bottom, not run: every branch counts, and what any branch puts into a variable stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from helpers_tool_chain import chain, definitions, values
from helpers_wrappers import Param

WORDS = "if|elif|else|end|for|set|echo|import|from|def|silent|while|try|except|unless"
DIRECTIVE = re.compile(rf"(#(?:{WORDS})\b[^#\n]*#|^\s*#\s*(?:{WORDS})\b.*$)", re.M)
COMMENT = re.compile(r"^\s*##.*$|#def\b[\s\S]*?#end def", re.M)
REF = re.compile(r"(?<!\\)\$\{?([A-Za-z_]\w*(?:\.\w+|\[[^\]\n]+\])*)")
OPTION = re.compile(r"(?<![\w$-])--[a-z][a-z0-9-]*")
BUILT = re.compile(r"(?<![\w-])--\$\{?(\w+)\}?([\w-]*)")  # an option whose name a loop gives
CALL = re.compile(r"(?<![\w./-])xmodal ([a-z]+)(?![\w./-])")
BETWEEN = re.compile(r"(&&|\|\||[;|\n])")
GIVEN = re.compile(r"(--[a-z][a-z0-9-]*)[ =]+['\"]?\$\{?([A-Za-z_][\w.]*)\}?['\"]?(?=\s|$)")
NAME = re.compile(r"\.(?:element_identifier|display_name|name)$")
CALLED_HARMLESS = re.compile(r"\$harmless\([^()]*\)")
CONDITION = re.compile(r"\bif\b.*?\belse\b")
WORD = re.compile(r"'([^']+)'")
SAFE = ("integer", "float", "boolean", "select")
OF_TYPE = ("ext", "extension", "file_ext")  # Galaxy's own words, none of the user's


@dataclass
class Call:
    """``xmodal NAME`` and what follows, to the end of that command."""

    name: str
    text: str = ""
    options: set[str] = field(default_factory=set)


class Script:
    """``text``: of ``<command>``, macros expanded.  ``files``: outputs and <configfiles>, paths of Galaxy's choice."""

    def __init__(self, text: str, params: list[Param], repeats: list[str], files: list[str]) -> None:
        self.params, self.repeats = params, repeats
        self.aliases: dict[str, list[str]] = {}  # of loops and #set: the params or repeats that stand behind
        self.literals: dict[str, list[str]] = {}  # words that a variable can be
        self.options: dict[str, set[str]] = {}  # options that a variable holds
        self.harmless: set[str] = set()
        self.tainted: set[str] = set(files)
        self.names: set[str] = set()  # variables that hold the name of a dataset as the user wrote it
        self.used: set[Param] = set()
        self.passed: set[Param] = set()  # into the shell or a variable, not only asked about
        self.read: set[Param] = set()  # datasets whose path the shell gets, not only their type or name
        self.calls: list[Call] = []
        self.problems: list[str] = []
        self.shell = ""
        self._loops: list[dict[str, list[str]]] = []
        self._call: Call | None = None
        self._quote = ""
        pieces = DIRECTIVE.split(COMMENT.sub("", text))
        for piece in pieces:
            if DIRECTIVE.fullmatch(piece):
                self._direct(piece.strip().rstrip("#").strip())
            else:
                self._run(piece)
        directives = (piece.strip() for piece in pieces if DIRECTIVE.fullmatch(piece))
        self.problems += [*chain(self.shell), *values(directives), *definitions(text)]
        if "$harmless(" in text and "#def harmless" not in text:
            self.problems.append("$harmless is not defined: @NAMES@ is missing")
        if self._quote:
            self.problems.append(f"a {self._quote} is not closed")
        for word in ("if", "for", "while", "def"):
            opened, closed = (len(re.findall(rf"#\s*{start}{word}\b", text)) for start in ("", r"end\s+"))
            if opened != closed:
                self.problems.append(f"{opened} #{word}, but {closed} #end {word}")

    # ---- directives

    def _direct(self, line: str) -> None:
        if found := re.match(r"#\s*for (.+?) in (.+)", line):
            self._loops.append(dict(self.aliases))
            self._loop(re.findall(r"\w+", found[1]), found[2])
        elif line == "#end for":
            self.aliases = self._loops.pop() if self._loops else self.aliases
        elif found := re.match(r"#\s*set \$?(\w+) = (.+)", line):
            self._set(found[1], CONDITION.sub("", CALLED_HARMLESS.sub("", found[2])))
        elif found := re.match(r"#\s*silent \$(\w+)\.append\((.+)\)$", line):
            self._put(found[1], CALLED_HARMLESS.sub("", found[2]))
        elif line.startswith("#echo"):
            self._run(" ".join(f"${ref}" for ref in REF.findall(line)))
        named = {param for ref in REF.findall(line) for param, _ in self.behind(ref)}
        self.used |= named
        if re.match(r"#\s*(set|silent|for)", line):
            self.passed |= named

    def _loop(self, names: list[str], over: str) -> None:
        rows = [row.split(",") for row in re.findall(r"\(([^()]+)\)", over)] if over.startswith("((") else []
        if rows:  # (('check', $check), ('prepare', $prepare))
            columns = [" ".join(column) for column in zip(*rows, strict=True)]
        elif found := re.match(r"zip\((.+)\)", over):
            columns = found[1].split(",")
        else:  # the number that enumerate gives is harmless
            columns = ["$harmless"] * (len(names) - 1) + [over]
        for name, source in zip(names, columns, strict=True):
            self._name(name, source)

    def _name(self, name: str, source: str) -> None:
        """What the variable of a loop over ``source`` stands for."""
        refs = REF.findall(source)
        if known := [p for ref in refs for p in self.paths(ref) if p in self.repeats or self._params_at(p)]:
            self.aliases[name] = known
        elif refs and refs[0] not in self.literals:
            self.options[name] = self.options.get(refs[0], set())
            (self.tainted if refs[0] in self.tainted else self.harmless).add(name)
        else:
            self.literals[name] = self.literals[refs[0]] if refs else WORD.findall(source)

    def _set(self, name: str, value: str) -> None:
        alone = REF.fullmatch(value.strip())
        paths = self.paths(alone[1]) if alone else []
        if any(f"{param.path}.".startswith(f"{path}.") for param in self.params for path in paths):
            self.aliases[name] = paths  # a conditional, section or param under another name
        elif value.startswith("(") and not REF.search(value):
            self.literals[name] = WORD.findall(value)
        else:
            self._put(name, value)

    def _put(self, name: str, value: str) -> None:
        """``value`` goes into the variable ``name``; the name of "--%s" is given by a loop."""
        (self.tainted if self._taints(value) else self.harmless).add(name)
        if any(self._is_name(ref) for ref in REF.findall(value)):
            self.names.add(name)
        built = re.search(r"--%s.*?% *\(?\$(\w+)", value)
        words = self.literals.get(built[1], []) if built else []
        self.options.setdefault(name, set()).update(OPTION.findall(value), (f"--{word}" for word in words))

    def _taints(self, expression: str) -> bool:
        """Does a hostile value get into it, other than through '%s' in single quotes?"""
        if found := re.fullmatch(r'"([^"]*)"\s*%\s*\(?(.+?)\)?', expression.strip()):
            inside = [found[1][: m.start()].count("'") % 2 == 1 for m in re.finditer("%[sd]", found[1])]
            expression = " ".join(a for a, quoted in zip(found[2].split(","), inside, strict=False) if not quoted)
        return any(self._hostile(ref) for ref in REF.findall(expression))

    # ---- references

    def paths(self, ref: str) -> list[str]:
        """``paired[$name]`` as the paths that it can be."""
        first, *rest = re.findall(r"\w+|\[[^\]]+\]", ref)
        choices = [self.aliases.get(first, [first]), *(self._key(p[1:-1]) if p[0] == "[" else [p] for p in rest)]
        return [".".join(words) for words in product(*choices)]

    def _key(self, inner: str) -> list[str]:
        return self.literals.get(inner[1:], []) if inner[0] == "$" else [inner.strip("'\"")]

    def _params_at(self, path: str) -> list[tuple[Param, str]]:
        under = [p for p in self.params if path == p.path or path.startswith(f"{p.path}.")]
        return [(param, path[len(param.path) + 1 :]) for param in under]

    def behind(self, ref: str) -> list[tuple[Param, str]]:
        """The params that ``ref`` can be, each with what is asked of it (ext, element_identifier, ...)."""
        return [found for path in self.paths(ref) for found in self._params_at(path)]

    def _hostile(self, ref: str) -> bool:
        """Can what stands for ``ref`` hold what a shell reads?"""
        if re.split(r"[.\[]", ref)[0] in self.tainted:
            return True
        return any(
            asked.split(".")[0] not in OF_TYPE and (param.kind not in SAFE or asked.startswith("fields"))
            for param, asked in self.behind(ref)
        )

    def _known(self, ref: str) -> bool:
        head = re.split(r"[.\[]", ref)[0]
        named = (self.harmless, self.tainted, self.literals, self.aliases, self.repeats)
        return bool(self.behind(ref)) or head.startswith("__") or any(head in names for names in named)

    # ---- what the shell gets

    def _run(self, text: str) -> None:
        self.shell += text
        for ref, quote in self._quoted(text):
            if not self._known(ref):
                self.problems.append(f"${ref} is no param")
            elif self._hostile(ref) and quote != "'":
                self.problems.append(f"${ref} is not in single quotes")
            self.passed |= {param for param, _ in self.behind(ref)}
            self.read |= {param for param, asked in self.behind(ref) if not asked}
        self.used |= self.passed
        for option, ref in GIVEN.findall(text):
            arguments = {param.argument for param, _ in self.behind(ref)} - {option}
            self.problems += [
                f"{option} gets the value of {other or f'${ref}, which has no argument'}" for other in arguments
            ]
        for ref in filter(self._is_name, REF.findall(CALLED_HARMLESS.sub("", text))):
            self.problems.append(f"${ref}, the name of a dataset, does not go through $harmless")
        for segment in BETWEEN.split(text):
            self._count(segment)

    def _count(self, segment: str) -> None:
        """Add to the call that ``segment`` belongs to."""
        if BETWEEN.fullmatch(segment):
            self._call = self._call if segment == "\n" else None
            return
        if found := CALL.search(segment):
            self._call = Call(found[1])
            self.calls.append(self._call)
        elif not self._call and (left := OPTION.findall(segment)):
            self.problems.append(f"{left[0]} stands outside of any call of xmodal")
        if self._call:
            self._call.text += segment
            self._call.options |= self._options_in(segment)

    def _options_in(self, text: str) -> set[str]:
        refs = REF.findall(text)
        flags = {param.element for ref in refs for param, _ in self.behind(ref) if param.kind == "boolean"}
        found = {
            option for flag in flags for v in ("truevalue", "falsevalue") for option in OPTION.findall(flag.get(v, ""))
        }
        found |= {option for ref in refs for option in self.options.get(ref, ())}
        found |= {f"--{word}{rest}" for name, rest in BUILT.findall(text) for word in self.literals.get(name, [])}
        return found | set(OPTION.findall(text))

    def _quoted(self, text: str) -> Iterator[tuple[str, str]]:
        """References, each with the quote that it stands in."""
        end = 0
        for found in REF.finditer(text):
            self._pass(text[end : found.start()])
            yield found[1], self._quote
            end = found.end()
        self._pass(text[end:])

    def _pass(self, text: str) -> None:
        for sign in re.findall(r"(?<!\\)['\"]", text):
            self._quote = "" if sign == self._quote else self._quote or sign

    def _is_name(self, ref: str) -> bool:
        """The name of a dataset, which even in quotes is not safe; ``x.name`` can be a param too."""
        is_param = any(not asked for _, asked in self.behind(ref))
        return ref.split(".")[0] in self.names or bool(NAME.search(ref) and not is_param)
