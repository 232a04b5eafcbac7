"""Pictures of the map of networks: Graphviz's language, and SVG with a layout of our own. Pure."""

from collections.abc import Iterable

from barque.cli.network_map import Box, Map, Net

_COLORS = ("#3b6fb6", "#b6573b", "#3b9b6b", "#8a4fb0", "#a88a1f", "#2f9aa0", "#b03f73", "#5d6b7a")
_PORTS_X, _BOXES_X, _NETS_X = 20, 250, 640
_PORT_WIDTH, _BOX_WIDTH, _NET_WIDTH = 150, 200, 220
_LINE, _PAD, _GAP = 16, 10, 22
_CHARACTER = 7.0


def dot(drawn: Map) -> str:
    """Return the map in the language of Graphviz."""
    out = ["graph networks {", "  rankdir=LR;", '  node [fontname="sans-serif"];', '  edge [fontname="sans-serif"];']
    for number, net in enumerate(drawn.networks):
        label = "\n".join([net.name, *_facts(net)])
        color = _COLORS[number % len(_COLORS)]
        out.append(f"  {_quoted('net ' + net.name)} [shape=ellipse, color={_quoted(color)}, label={_quoted(label)}];")
    for box in drawn.boxes:
        style = "" if box.state == "running" else ", style=dashed"
        out.append(f"  {_quoted('box ' + box.name)} [shape=box, label={_quoted(chr(10).join(_texts(box)))}{style}];")
        for port in box.ports:
            out.append(f"  {_quoted('port ' + port.host)} [shape=cds, label={_quoted(port.host)}];")
            label = _quoted(port.container)
            out.append(f"  {_quoted('port ' + port.host)} -- {_quoted('box ' + box.name)} [label={label}];")
    for box in drawn.boxes:
        for member in box.members:
            label = _quoted("\n".join(address.partition("/")[0] for address in member.addresses))
            out.append(f"  {_quoted('box ' + box.name)} -- {_quoted('net ' + member.network)} [label={label}];")
    return "\n".join([*out, "}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _facts(net: Net) -> list[str]:
    return [net.driver + (", internal" if net.internal else ""), *net.subnets]


def _texts(box: Box) -> list[str]:
    found = [box.name, box.image]
    if box.state != "running":
        found.append(box.state)
    if box.guests:
        found.append("+ " + ", ".join(box.guests))
    return found


class _Placed:
    """A rectangle with lines of text."""

    def __init__(self, texts: Iterable[str], width: int) -> None:
        self.texts = [_fitted(text, width) for text in texts if text]
        self.height = len(self.texts) * _LINE + _PAD
        self.top = 0

    @property
    def middle(self) -> float:
        """Return the height of its middle."""
        return self.top + self.height / 2


def _fitted(text: str, width: int) -> str:
    most = int((width - 2 * _PAD) / _CHARACTER)
    return text if len(text) <= most else text[: most - 1] + "…"


def svg(drawn: Map) -> str:
    """Return the map as an SVG picture: published ports to the left, then containers, then networks."""
    nets = {net.name: _Placed([net.name, *_facts(net)], _NET_WIDTH) for net in drawn.networks}
    ranks = {name: at for at, name in enumerate(nets)}
    order = sorted(drawn.boxes, key=lambda box: sum(ranks[m.network] for m in box.members) / len(box.members))
    boxes = {box.name: _Placed(_texts(box), _BOX_WIDTH) for box in order}
    # A container needs room for the addresses at its edges and for its ports.
    for box in order:
        placed = boxes[box.name]
        placed.height = max(placed.height, _LINE * len(box.members) + _PAD, _LINE * len(box.ports) + _PAD)
    tall = max(_stacked(boxes.values()), _stacked(nets.values()))
    for column in (boxes, nets):
        _centered(column.values(), tall)
    colors = {name: _COLORS[at % len(_COLORS)] for at, name in enumerate(nets)}
    out = [_rectangle(placed, _NETS_X, _NET_WIDTH, colors[name], 14) for name, placed in nets.items()]
    for box in order:
        out += _edges(box, boxes[box.name], nets, colors)
        out += _ports(box, boxes[box.name])
        dashed = box.state != "running"
        out.append(_rectangle(boxes[box.name], _BOXES_X, _BOX_WIDTH, "#39424d", 4, dashed=dashed))
    width, height = _NETS_X + _NET_WIDTH + 20, max(tall, 40) + 40
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n' + "\n".join(out) + "\n</svg>\n"
    )


def _stacked(column: Iterable[_Placed]) -> int:
    top = 0
    for placed in column:
        placed.top = top
        top += placed.height + _GAP
    return max(0, top - _GAP)


def _centered(column: Iterable[_Placed], tall: int) -> None:
    listed = [*column]
    used = listed[-1].top + listed[-1].height if listed else 0
    for placed in listed:
        placed.top += 20 + (tall - used) // 2


def _rectangle(placed: _Placed, x: int, width: int, color: str, radius: int, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    size = f'x="{x}" y="{placed.top}" width="{width}" height="{placed.height}" rx="{radius}"'
    parts = [f'<rect {size} fill="{color}" fill-opacity="0.1" stroke="{color}"{dash}/>']
    first = placed.middle - len(placed.texts) * _LINE / 2 + _LINE - 4
    for number, text in enumerate(placed.texts):
        weight = ' font-weight="bold"' if number == 0 else ' fill="#555555"'
        parts.append(f'<text x="{x + _PAD}" y="{first + number * _LINE:g}"{weight}>{_escaped(text)}</text>')
    return "".join(parts)


def _edges(box: Box, placed: _Placed, nets: dict[str, _Placed], colors: dict[str, str]) -> list[str]:
    found = []
    for number, member in enumerate(box.members):
        start = placed.top + (number + 0.5) * placed.height / len(box.members)
        left, right, end = _BOXES_X + _BOX_WIDTH, _NETS_X, nets[member.network].middle
        bend = (left + right) / 2
        color = colors[member.network]
        found.append(f'<path d="M{left} {start:g}C{bend:g} {start:g} {bend:g} {end:g} {right} {end:g}" '
                     f'fill="none" stroke="{color}" stroke-width="1.5"/>')  # fmt: skip
        label = " ".join(address.partition("/")[0] for address in member.addresses)
        text = _escaped(_fitted(label, 190))
        at = f'x="{left + 6}" y="{start - 3:g}" font-size="10"'
        found.append(f'<text {at} fill="{color}" paint-order="stroke" stroke="#fff" stroke-width="3">{text}</text>')
    return found


def _ports(box: Box, placed: _Placed) -> list[str]:
    found = []
    for number, port in enumerate(box.ports):
        y = placed.top + (number + 0.5) * placed.height / len(box.ports)
        left = _PORTS_X + _PORT_WIDTH
        found.append(f'<text x="{left - 4}" y="{y + 4:g}" text-anchor="end">{_escaped(_fitted(port.host, 170))}</text>')
        found.append(f'<path d="M{left} {y:g}H{_BOXES_X - 7}" stroke="#39424d"/>'
                     f'<path d="M{_BOXES_X} {y:g}l-8 -4v8z" fill="#39424d"/>')  # fmt: skip
        found.append(f'<text x="{left + 6}" y="{y - 3:g}" font-size="10">{_escaped(port.container)}</text>')
    return found


def _escaped(text: str) -> str:
    plain = "".join(c if c.isprintable() else "?" for c in text)
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
