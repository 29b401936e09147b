"""Chinese words and sentence patterns of the demo: tables alone, read by `demo_grammars`."""

from crosstune.data.synthetic.grammar import Aspect, Domain, Grammar, Mentions, Names, Opinions

_GOOD = "出色 理想 棒"
_BAD = "糟糕 差劲 烂"

_RESTAURANT = Domain(
    words={
        "visit": "我们去这家餐厅吃饭",
        "here": "这家餐厅",
        "there": "那家餐厅",
    },
    aspects=(
        Aspect("菜", "", f"{_GOOD} 好吃", f"{_BAD} 难吃"),
        Aspect("汤", "", f"{_GOOD} 好喝", f"{_BAD} 难喝"),
        Aspect("甜点", "", f"{_GOOD} 好吃", f"{_BAD} 难吃"),
        Aspect("服务", "", f"{_GOOD} 周到", f"{_BAD} 慢"),
        Aspect("服务员", "", f"{_GOOD} 热情", f"{_BAD} 冷淡"),
    ),
)
_HOTEL = Domain(
    words={
        "visit": "我们住进这家酒店",
        "here": "这家酒店",
        "there": "那家酒店",
    },
    aspects=(
        Aspect("房间", "", f"{_GOOD} 舒适", f"{_BAD} 脏"),
        Aspect("床", "", f"{_GOOD} 舒适", f"{_BAD} 硬"),
        Aspect("早餐", "", f"{_GOOD} 好吃", f"{_BAD} 难吃"),
        Aspect("前台", "", f"{_GOOD} 热情", f"{_BAD} 冷淡"),
        Aspect("浴室", "", f"{_GOOD} 舒适", f"{_BAD} 脏"),
    ),
)
_SERIES = Domain(
    words={
        "visit": "我们看了这部电视剧",
        "here": "这部电视剧",
        "there": "那部电视剧",
    },
    aspects=(
        Aspect("情节", "", f"{_GOOD} 精彩", f"{_BAD} 无聊"),
        Aspect("演员", "", f"{_GOOD} 自然", f"{_BAD} 无聊"),
        Aspect("对话", "", f"{_GOOD} 自然", f"{_BAD} 无聊"),
        Aspect("音乐", "", f"{_GOOD} 好听", f"{_BAD} 难听"),
        Aspect("结局", "", f"{_GOOD} 精彩", f"{_BAD} 无聊"),
    ),
)
_PHONE = Domain(
    words={
        "visit": "我们买了这款手机",
        "here": "这款手机",
        "there": "那款手机",
    },
    aspects=(
        Aspect("屏幕", "", f"{_GOOD} 清晰", f"{_BAD} 模糊"),
        Aspect("电池", "", f"{_GOOD} 可靠", f"{_BAD} 慢"),
        Aspect("相机", "", f"{_GOOD} 清晰", f"{_BAD} 模糊"),
        Aspect("按键", "", f"{_GOOD} 可靠", f"{_BAD} 硬"),
        Aspect("声音", "", f"{_GOOD} 好听", f"{_BAD} 难听"),
    ),
)

_OPINIONS = Opinions(
    domains=(_RESTAURANT, _HOTEL, _SERIES, _PHONE),
    agreements={"": {}},
    affirmed=(
        "{np}很{adjective}",
        "{np}非常{adjective}",
        "{np}特别{adjective}",
        "{np}真的很{adjective}",
    ),
    negated=("{np}不{adjective}", "{np}一点也不{adjective}", "{np}并不{adjective}"),
    feelings={
        "good": (
            ("我很喜欢{np}", "我不喜欢{np}"),
            ("{np}让我很满意", "{np}没让我满意"),
            ("{np}让我感到高兴", "{np}没让我感到高兴"),
        ),
        "bad": (
            ("我很讨厌{np}", "我不讨厌{np}"),
            ("{np}让我很失望", "{np}没让我失望"),
            ("{np}让我感到心烦", "{np}没让我感到心烦"),
        ),
    },
    fillers={
        "when": (
            *("上周六", "星期一", "两周前", "去年夏天", "五月份", "昨天", "生日那天", "一个月前"),
            *("下班以后", "放假的时候"),
        ),
        "who": ("我哥哥", "我妈妈", "我邻居", "一个朋友", "影评人", "我老板", "我表妹", "报纸上"),
    },
    plain=(
        "{pro1}",
        "{pro1}，{pro2}",
        "{pro1}，{pro2}，{pro3}",
        "{pro1}，而且{pro2}",
        "说实话，{pro1}",
        "大家都发现{fact}",
    ),
    overturned=(
        "虽然{con1}，但是{pro2}",
        "尽管{con1}，{pro2}",
        "{con1}，不过{pro2}",
        "{con1}，可是{pro2}",
        "{con1}，{con2}，可是{pro3}",
        "我以为{np}会很{bad}，结果却很{good}",
        "以前{np}很{bad}，但是现在很{good}",
        "{who}说{lie}，其实{np}很{good}",
    ),
    scoped=(
        "{pro1}，尽管{con2}",
        "{who}说{lie}，其实说错了",
        "{who}说{fact}，确实说对了",
        "现在{np}很{good}，以前很{bad}",
        "{here}的{np}比{there}的更{good}",
        "{there}的{np}比{here}的更{bad}",
        "{here}的{np}没有{there}的那么{bad}",
        "{there}的{np}没有{here}的那么{good}",
        "谁说{lie}，谁就错了",
        "谁也不能否认{fact}",
        "{np}绝对谈不上{bad}",
    ),
    opened="{when}{visit}，{body}。",
    closed="{body}。",
    lengths=(10, 40),
    verdicts={"good": ("评分：5/5。",), "bad": ("评分：1/5。",)},
    scored={"good": "{np}又{good}又{other}：5/5。", "bad": "{np}又{good}又{other}：1/5。"},
)

_MENTIONS = Mentions(
    names={
        "shared": Names(
            known=(
                *("万宁", "永和", "安宁", "海宁", "建平", "白云", "长春", "金华", "和平", "平安"),
                *("华安", "大同", "新民", "泰和"),
            ),
            held_out=(
                *("建宁", "永安", "高明", "文昌", "常宁", "东风", "德清", "太康", "兴华", "嘉禾"),
            ),
        ),
        "per": Names(
            known=(
                *("王芳", "李建国", "张伟", "刘洋", "陈静", "赵永和", "孙海宁", "周金华", "吴敏"),
                *("林白云", "黄志强", "何平安", "郭丽", "马新民", "徐长春"),
            ),
            held_out=(
                *("杨帆", "朱建平", "胡文昌", "高小红", "罗永安", "梁超", "宋兴华", "郑和平"),
                *("谢婷", "唐德清"),
            ),
        ),
        "loc": Names(
            known=(
                *("北京", "上海", "云南省", "西安", "青岛", "平安县", "白云山", "和平路", "大同市"),
                *("新民村", "广州", "长春湖", "泰和镇", "金华街", "海宁桥"),
            ),
            held_out=(
                *(
                    "南京",
                    "四川省",
                    "杭州",
                    "永安县",
                    "文昌路",
                    "高明山",
                    "建宁镇",
                    "重庆",
                    "太康村",
                ),
                *("华安湖",),
            ),
        ),
        "org": Names(
            known=(
                *(
                    "平安银行",
                    "长春大学",
                    "华安公司",
                    "金华集团",
                    "大同医院",
                    "白云药厂",
                    "新民报社",
                ),
                *(
                    "泰和保险",
                    "建平学院",
                    "光明科技",
                    "海宁电器",
                    "和平书店",
                    "远大公司",
                    "永和食品",
                ),
                *("万宁基金会",),
            ),
            held_out=(
                *(
                    "永安银行",
                    "文昌大学",
                    "兴华公司",
                    "太康医院",
                    "东风集团",
                    "高明科技",
                    "德清报社",
                ),
                *("嘉禾保险", "蓝海公司", "常宁学院"),
            ),
        ),
        "club": Names(
            known=("长春猎豹", "北京飞龙", "大同矿工", "海宁潮", "金华雄狮", "万宁海燕"),
            held_out=("永安飞虎", "南京战马", "建宁雄鹰", "杭州水手"),
        ),
    },
    fillers={
        "when": (
            *("昨天", "上个星期", "星期五", "今天早上", "四月份", "去年冬天", "两天前", "午饭以后"),
            *("星期天", "今年"),
        ),
        "thing": (
            *("那座桥", "那家书店", "那个市场", "那家银行", "那座花园", "那个车站", "那所大学"),
            *("那所学校", "那座体育馆", "那家剧院", "那家医院", "那座博物馆"),
        ),
        "job": ("工程师", "护士", "老师", "司机", "律师", "厨师", "经理", "保安"),
        "common": (
            *("几朵白云", "一匹马", "一张白纸", "一座高山", "一片海", "一条黄鱼", "一阵东风"),
            *("一块金子", "一棵树", "一座林子", "一条长河", "一只和平鸽"),
        ),
    },
    patterns=(
        "{per}{when}和{per}一起去了{loc}。",
        "{per}在{loc}为{org}工作。",
        "{club}队在{loc}赢了{club}队。",
        "{when}{club}队以两球之差输给了{club}队。",
        "{org}{when}在{loc}开了一家分店。",
        "{org}聘请{per}当{job}。",
        "听{per}说，去{loc}的路不通了。",
        "{loc}的{thing}归{org}所有。",
        "{per}出生在{loc}，现在住在{loc}。",
        "{org}的股票{when}跌了。",
        "{per}和{per}{when}在{thing}见面。",
        "{loc}的市长{when}感谢了{per}。",
        "{when}，{org}解雇了{per}。",
        "{per}离开{org}，去了{org}上班。",
        "从{loc}到{loc}的火车{when}晚点了。",
        "{per}的信{when}寄到了{loc}。",
        "{org}的{job}{per}在{loc}附近买了一套房子。",
        "{loc}下了一整天的雨，{thing}也关门了。",
        "{club}队的球迷在{loc}的街上唱歌。",
        "{per}{when}为{club}队进了两个球。",
        "{org}的员工{when}罢工了。",
        "{job}{per}在{thing}旁边看见{common}。",
        "邻居{per}把房子卖给了{org}。",
        "{job}说，{loc}比{loc}冷得多。",
        "{org}和{org}共用{thing}。",
        "{per}给{per}画了{common}。",
    ),
    nameless=(
        "{thing}{when}关门了。",
        "{job}在{thing}旁边看见{common}。",
        "{when}，{job}早早地离开了{thing}。",
        "{thing}什么时候开门？",
        "{job}希望世界和平，一路平安。",
        "{when}，{job}觉得心里很安宁。",
        "{job}梦见了{common}。",
        "这里四季长春，{job}{when}说。",
        "{job}的主意{when}总是很高明。",
        "古人向往天下大同，{job}{when}说。",
    ),
)

GRAMMAR = Grammar(opinions=_OPINIONS, mentions=_MENTIONS, spaced=False)
