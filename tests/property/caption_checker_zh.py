"""Reads Chinese captions: measure words, a verb that suits the thing, no unknown words, known clause forms."""

from __future__ import annotations

import re

from caption_checking import Report, Thing, sign

KINDS: dict[str, str] = {}
MEASURES: dict[str, str] = {}


def _add(measure: str, **words: str) -> None:
    for kind, names in words.items():
        MEASURES[kind] = measure
        for name in names.split():
            KINDS[name] = kind


_add(
    "件",
    tshirt="T恤 短袖T恤 短袖上衣 圆领衫 半袖衫 短袖衫", shirt="衬衫 衬衣 翻领衫 有扣衬衣 商务衬衣",
    sweater="毛衣 套头衫 长袖上衣 针织衫 毛线衫", hoodie="连帽衫 连帽卫衣 兜帽衫 带帽卫衣",
    tank="背心 无袖上衣 无袖衫 吊带衫 坎肩", jacket="夹克 外套 夹克衫 短外套", coat="大衣 长外套 呢大衣 长风衣",
    blazer="西装外套 西服上衣 小西装 西服", puffer="羽绒服 羽绒外套 棉服 羽绒袄",
)  # fmt: skip
_add(
    "条",
    dress="连衣裙 裙子 裙装 洋装", trousers="长裤 裤子 西裤 休闲裤", jeans="牛仔裤 丹宁裤 牛仔长裤",
    shorts="短裤 五分裤 中裤", skirt="半身裙 半裙 半截裙",
    leggings="紧身裤 打底裤 健身裤 瑜伽裤", scarf="围巾 围脖 披巾",
)  # fmt: skip
_add(
    "双",
    shoes="鞋子 鞋 鞋履", sneakers="运动鞋 球鞋 跑鞋 旅游鞋 波鞋", boots="靴子 皮靴 短靴", sandals="凉鞋 露趾鞋 沙滩鞋",
    leather="皮鞋 正装鞋 乐福鞋", heels="高跟鞋 细跟鞋 高跟女鞋",
)  # fmt: skip
_add(
    "个",
    bag="包 包包 袋子 提包", backpack="双肩包 背包 书包 双肩背包 旅行背囊",
    shoulderbag="单肩包 斜挎包 挎包 邮差包",
    handbag="手提包 手提袋 手包 手拎包", suitcase="行李箱 拉杆箱 旅行箱 皮箱",
    shoppingbag="购物袋 塑料袋 环保袋 方便袋",
)  # fmt: skip
_add("顶", cap="棒球帽 鸭舌帽 运动帽 太阳帽", beanie="毛线帽 针织帽 绒线帽 冷帽", hat="帽子 遮阳帽 礼帽 宽檐帽")
_add("把", umbrella="雨伞 伞 阳伞 长柄伞")
_add("副", glasses="眼镜 近视镜 框架镜", sunglasses="墨镜 太阳镜 遮光镜")
COLORS = {
    name: key
    for key, names in {
        "black": "黑色 纯黑 墨黑", "white": "白色 雪白 纯白", "gray": "灰色 银灰 烟灰", "red": "红色 大红 朱红",
        "blue": "蓝色 湛蓝 宝蓝", "navy": "深蓝色 藏青色 藏蓝 墨蓝", "lightblue": "浅蓝色 天蓝色 淡蓝 湖蓝",
        "green": "绿色 翠绿 草绿", "yellow": "黄色 明黄 鹅黄", "orange": "橙色 橘色 橙黄 橘红",
        "purple": "紫色 紫罗兰色 淡紫", "pink": "粉色 粉红色 桃红 玫红", "brown": "棕色 褐色 咖啡色 栗色 巧克力色",
        "beige": "米色 卡其色 杏色 驼色", "dark": "深色 暗色",
    }.items()
    for name in names.split()
}  # fmt: skip
PATTERNS = {
    "条纹": "striped", "横纹": "striped", "格子": "plaid", "格纹": "plaid", "方格": "plaid", "波点": "dots",
    "圆点": "dots", "圆斑": "dots",
}  # fmt: skip


def _any(words: object) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))  # type: ignore[call-overload]


_C, _P = _any(COLORS), _any(PATTERNS)
THING = re.compile(
    rf"(?:一(?P<measure>[件条双个顶把副名位]))?"
    rf"(?:(?:带有?|饰有|缀有)(?P<second>{_C})(?P<marks>{_P})的|(?:印有|胸前有|绘有|正面绘着)(?P<ink>{_C})?(?P<print>图[案样])的"
    rf"|带(?P<ink2>{_C})?(?P<print2>印花)的)?"
    rf"(?:(?P<color>{_C})(?:(?:和|与|以及)(?P<with>{_C})(?P<two>相间的条纹|条纹|双色横纹)|(?P<pattern>{_P})|(?P<de>的)?)|(?P<bare>{_P}))?"
    rf"(?P<noun>{_any(KINDS)})"
)


def signed(text: str, errors: list[str]) -> tuple[str, list[Thing]]:
    """The text with noun phrases replaced by signs."""
    things: list[Thing] = []

    def read(found: re.Match[str]) -> str:
        thing = Thing(KINDS[found["noun"]], COLORS.get(found["color"] or "", "-"))
        if found["measure"] and found["measure"] != MEASURES[thing.kind]:
            errors.append(f"measure word: {found[0]}")
        if found["with"]:
            thing.pattern, thing.second = "striped", COLORS[found["with"]]
        elif found["pattern"] or found["bare"]:
            thing.pattern = PATTERNS[found["pattern"] or found["bare"]]
        if found["marks"]:
            if thing.pattern:
                errors.append("two patterns: " + found[0])
            thing.pattern, thing.second = PATTERNS[found["marks"]], COLORS[found["second"]]
        elif found["print"] or found["print2"]:
            thing.pattern, thing.second = "print", COLORS.get(found["ink"] or found["ink2"] or "", "-")
        things.append(thing)
        return sign(len(things) - 1)

    return THING.sub(read, text), things


TOPS = {"tshirt", "shirt", "sweater", "hoodie", "tank", "dress", "jacket", "coat", "blazer", "puffer"}
PERSON = {
    **dict.fromkeys(("女子", "女士", "女性", "年轻女子", "年轻女性", "老年女性"), ("f", "名位")),
    **dict.fromkeys(("男子", "男士", "男性", "年轻男子", "年轻男性", "老年男性"), ("m", "名位")),
    **dict.fromkeys(("女人", "女孩"), ("f", "个")),
    **dict.fromkeys(("男人", "男孩"), ("m", "个")),
    "年长的女士": ("f", "位"), "年长的男士": ("m", "位"), "行人": ("", "名位"), "人": ("", "个"),
}  # fmt: skip
SUBJECT = re.compile(rf"(?:[一这](?P<measure>[名位个])|画面中的)(?P<noun>{_any(PERSON)})")
PRONOUNS = {"她": "f", "他": "m", "此人": "", "这个人": ""}
CLAUSES = [
    (re.compile(form), kinds, group)
    for form, kinds, group in (
        (r"(?:身穿|穿着|上身穿着|上身是|外面穿着)N(\d+)", TOPS, ""),
        (r"(?:里面是|里面穿着|内搭)N(\d+)", TOPS, "inner "),
        (r"(?:下身穿着|下身是|下身穿)N(\d+)", {"trousers", "jeans", "shorts", "skirt", "leggings"}, ""),
        (r"(?:脚穿|脚上穿着|脚上是|脚踩)N(\d+)", {"shoes", "sneakers", "boots", "sandals", "leather", "heels"}, ""),
        (r"(?:头戴|头上戴着|戴着)N(\d+)", {"cap", "beanie", "hat"}, ""),
        (r"戴着N(\d+)", {"glasses", "sunglasses"}, ""),
        (r"(?:脖子上)?围着N(\d+)", {"scarf"}, ""),
        (r"(?:带着|拿着)N(\d+)", {"bag"}, ""),
        (r"(?:背上)?背着N(\d+)", {"backpack"}, ""),
        (r"(?:肩上)?挎着N(\d+)", {"shoulderbag"}, ""),
        (r"(?:拎着|手里提着)N(\d+)", {"handbag", "shoppingbag"}, ""),
        (r"[拉拖]着N(\d+)", {"suitcase"}, ""),
        (r"[打撑]着N(\d+)", {"umbrella"}, ""),
    )
]
_H = "(?:(?P<color>黑色|棕色|金色|灰白色|花白|红棕色|红色)的?)?"
HAIR_COLORS = {
    "黑色": "black", "棕色": "brown", "金色": "blond", "灰白色": "gray", "花白": "gray", "红棕色": "red", "红色": "red",
}  # fmt: skip
HAIR = re.compile(rf"(?:留着|一头){_H}(?P<loose>短发|中长发|长发)")
TIED = re.compile(rf"(?:扎着{_H}(?P<tail>马尾辫?)|[梳盘]着(?P<color2>黑色|棕色|金色|灰白色|花白|红棕色|红色)?的?发髻)")
LENGTHS = {"短发": "short", "中长发": "medium", "长发": "long"}
PLAIN = {
    "剃着光头": "hair:bald:-", "是光头": "hair:bald:-", "留着胡子": "beard", "蓄着胡须": "beard", "正在看手机": "phone",
    "手里拿着手机": "phone", "拿着一部手机": "phone", "背对镜头": "back", "背对着镜头": "back", "面向镜头": "front",
    "面对镜头": "front", "侧对镜头": "side", "侧身对着镜头": "side", "正在走路": "walking", "正在行走": "walking",
    "走在路上": "walking", "正站着": "standing", "站在那里": "standing",
}  # fmt: skip


def _read_clause(clause: str, things: list[Thing], report: Report) -> None:
    if clause in PLAIN:
        report.facts.add(PLAIN[clause])
        return
    found = HAIR.fullmatch(clause)
    if found:
        report.facts.add(f"hair:{LENGTHS[found['loose']]}:{HAIR_COLORS.get(found['color'] or '', '-')}")
        return
    found = TIED.fullmatch(clause)
    if found:
        color = HAIR_COLORS.get(found["color"] or found["color2"] or "", "-")
        report.facts.add(f"hair:{'ponytail' if found['tail'] else 'bun'}:{color}")
        return
    for form, kinds, group in CLAUSES:
        found = form.fullmatch(clause)
        if found and things[int(found[1])].kind in kinds:
            thing = things[int(found[1])]
            thing.group = "" if thing.kind == "dress" else group
            return
    report.errors.append("not understood: " + clause)


def check(caption: str) -> Report:
    """Errors and facts of a training caption."""
    report = Report()
    text, things = signed(caption, report.errors)
    gender = ""
    if not text.endswith("。"):
        report.errors.append("no full stop")
    for position, sentence in enumerate(text.removesuffix("。").split("。")):
        rest = sentence
        if position == 0:
            found = SUBJECT.match(sentence)
            if found is None:
                report.errors.append("no subject: " + sentence)
                continue
            gender, measures = PERSON[found["noun"]]
            if found["measure"] and found["measure"] not in measures:
                report.errors.append("measure word: " + found[0])
            if gender:
                report.facts.add("gender:" + gender)
            if "年轻" in found[0] or "孩" in found[0]:
                report.facts.add("young")
            if "老年" in found[0] or "年长" in found[0]:
                report.facts.add("old")
            rest = sentence[found.end() :]
        else:
            pronoun = next((word for word in PRONOUNS if sentence.startswith(word)), None)
            if pronoun is None or PRONOUNS[pronoun] != gender:
                report.errors.append("wrong pronoun: " + sentence)
                continue
            rest = sentence[len(pronoun) :]
        for clause in rest.split("，"):
            _read_clause(clause, things, report)
    report.facts.update(thing.group + thing.fact() for thing in things)
    return report


def agreement_errors(caption: str) -> list[str]:
    """Measure words that do not suit their noun in any caption, paraphrases too."""
    errors: list[str] = []
    text, _ = signed(caption, errors)
    errors.extend(f"no noun after 一{measure}" for measure in re.findall(r"一([件条双顶把副])", text))
    return errors
