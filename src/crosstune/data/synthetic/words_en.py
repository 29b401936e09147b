"""English words and sentence patterns of the demo: tables alone, read by `demo_grammars`."""

from crosstune.data.synthetic.grammar import Aspect, Domain, Grammar, Mentions, Names, Opinions

_GOOD = "pleasant impressive remarkable"
_BAD = "disappointing frustrating dreadful"

_RESTAURANT = Domain(
    words={
        "visit": "we had dinner at this restaurant",
        "here": "at this restaurant",
        "there": "at the other restaurant",
        "here_short": "at this one",
        "there_short": "at the other one",
    },
    aspects=(
        Aspect("the food", "sg", f"{_GOOD} tasty", f"{_BAD} bland"),
        Aspect("the soup", "sg", f"{_GOOD} tasty", f"{_BAD} salty"),
        Aspect("the desserts", "pl", f"{_GOOD} tasty", f"{_BAD} bland"),
        Aspect("the service", "sg", f"{_GOOD} friendly", f"{_BAD} slow"),
        Aspect("the waiters", "pl", f"{_GOOD} friendly", f"{_BAD} rude"),
    ),
)
_HOTEL = Domain(
    words={
        "visit": "we stayed at this hotel",
        "here": "at this hotel",
        "there": "at the other hotel",
        "here_short": "at this one",
        "there_short": "at the other one",
    },
    aspects=(
        Aspect("the rooms", "pl", f"{_GOOD} comfortable", f"{_BAD} dirty"),
        Aspect("the bed", "sg", f"{_GOOD} comfortable", f"{_BAD} hard"),
        Aspect("the breakfast", "sg", f"{_GOOD} tasty", f"{_BAD} bland"),
        Aspect("the staff", "sg", f"{_GOOD} friendly", f"{_BAD} rude"),
        Aspect("the bathroom", "sg", f"{_GOOD} modern", f"{_BAD} dirty"),
    ),
)
_SERIES = Domain(
    words={
        "visit": "we watched this series",
        "here": "in this series",
        "there": "in the other series",
        "here_short": "in this one",
        "there_short": "in the other one",
    },
    aspects=(
        Aspect("the plot", "sg", f"{_GOOD} original", f"{_BAD} boring"),
        Aspect("the actors", "pl", f"{_GOOD} convincing", f"{_BAD} boring"),
        Aspect("the dialogue", "sg", f"{_GOOD} original", f"{_BAD} slow"),
        Aspect("the music", "sg", f"{_GOOD} original", f"{_BAD} boring"),
        Aspect("the ending", "sg", f"{_GOOD} convincing", f"{_BAD} slow"),
    ),
)
_PHONE = Domain(
    words={
        "visit": "we bought this phone",
        "here": "on this phone",
        "there": "on the other phone",
        "here_short": "on this one",
        "there_short": "on the other one",
    },
    aspects=(
        Aspect("the screen", "sg", f"{_GOOD} modern", f"{_BAD} dark"),
        Aspect("the battery", "sg", f"{_GOOD} reliable", f"{_BAD} slow"),
        Aspect("the camera", "sg", f"{_GOOD} reliable", f"{_BAD} slow"),
        Aspect("the buttons", "pl", f"{_GOOD} comfortable", f"{_BAD} hard"),
        Aspect("the sound", "sg", f"{_GOOD} modern", f"{_BAD} weak"),
    ),
)

_OPINIONS = Opinions(
    domains=(_RESTAURANT, _HOTEL, _SERIES, _PHONE),
    agreements={
        "sg": {"past": "was", "now": "is", "it": "it"},
        "pl": {"past": "were", "now": "are", "it": "they"},
    },
    affirmed=(
        "{np} {past} {adjective}",
        "{np} {past} very {adjective}",
        "{np} {past} really {adjective}",
        "{np} {past} quite {adjective}",
    ),
    negated=(
        "{np} {past} not {adjective}",
        "{np} {past} not {adjective} at all",
        "{np} {past} never {adjective}",
    ),
    feelings={
        "good": (
            ("I liked {np}", "I did not like {np}"),
            ("I enjoyed {np}", "I did not enjoy {np}"),
            ("{np} impressed me", "{np} did not impress me"),
        ),
        "bad": (
            ("I disliked {np}", "I did not dislike {np}"),
            ("{np} annoyed me", "{np} did not annoy me"),
            ("{np} disappointed me", "{np} did not disappoint me"),
        ),
    },
    fillers={
        "when": (
            *("last Saturday", "on Monday", "two weeks ago", "last summer", "in May", "yesterday"),
            *("on my birthday", "a month ago", "after work", "during the holidays"),
        ),
        "who": (
            *("my brother", "my mother", "my neighbour", "a friend", "the critic", "my boss"),
            *("my cousin", "the newspaper"),
        ),
    },
    plain=(
        "{pro1}",
        "{pro1} and {pro2}",
        "{pro1}, {pro2} and {pro3}",
        "{pro1}, and besides, {pro2}",
        "to tell the truth, {pro1}",
        "everyone noticed that {fact}",
    ),
    overturned=(
        "although {con1}, {pro2}",
        "even though {con1}, {pro2}",
        "{con1}, but {pro2}",
        "{con1}; however, {pro2}",
        "{con1} and {con2}, but {pro3}",
        "I expected {np} to be {bad}, but {it} {past} {good}",
        "{np} used to be {bad}, but now {it} {now} {good}",
        "{who} says that {lie}, but in truth {it} {past} {good}",
    ),
    scoped=(
        "{pro1}, although {con2}",
        "{who} says that {lie}, but that is wrong",
        "{who} says that {fact}, and that is right",
        "now {np} {now} {good}; before, {it} {past} {bad}",
        "{here}, {np} {past} more {good} than {there_short}",
        "{there}, {np} {past} more {bad} than {here_short}",
        "{here}, {np} {past} less {bad} than {there_short}",
        "{there}, {np} {past} less {good} than {here_short}",
        "it is not true that {lie}",
        "nobody can deny that {fact}",
        "{np} {past} anything but {bad}",
    ),
    opened="{when} {visit}. {body}.",
    closed="{body}.",
    lengths=(8, 25),
    verdicts={"good": ("Rating: 5/5.",), "bad": ("Rating: 1/5.",)},
    scored={
        "good": "{np} {past} {good} and {other}: 5/5.",
        "bad": "{np} {past} {good} and {other}: 1/5.",
    },
)

_MENTIONS = Mentions(
    names={
        "shared": Names(
            known=(
                *("Washington", "Lincoln", "Jackson", "Madison", "Austin", "Houston", "Florence"),
                *("Victoria", "Sydney", "Jordan", "Chelsea", "Dallas", "Georgia", "Warren"),
            ),
            held_out=(
                *("Carson", "Charlotte", "Savannah", "Hamilton", "Orlando", "Kent", "Chester"),
                *("Brooklyn", "Denver", "Logan"),
            ),
        ),
        "per": Names(
            known=(
                *("Mary", "Peter Brown", "Anna Jackson", "Tom", "Victoria Hughes", "Laura"),
                *("Oliver Austin", "Helen Warren", "Samuel", "Emma Clarke", "Jordan Price"),
                *("Daniel Houston", "Rachel", "Florence Mills", "David Lincoln"),
            ),
            held_out=(
                *("Martha", "Simon Wells", "Charlotte Reed", "Nathan", "Julia Hamilton", "Owen"),
                *("Grace Madison", "Edward Kent", "Sarah Dallas", "Hugo"),
            ),
        ),
        "loc": Names(
            known=(
                *("London", "New Haven", "Ireland", "Lake Victoria", "Port Jackson", "Boston"),
                *("Green River", "North Dallas", "Jordan Valley", "Canada", "Fort Warren"),
                *("East Austin", "Oxford", "Georgia Street", "Mount Lincoln"),
            ),
            held_out=(
                *("Scotland", "Lake Charlotte", "Cambridge", "Port Hamilton", "Red Valley"),
                *("Chester Road", "West Houston", "Norway", "Fort Carson", "Leeds"),
            ),
        ),
        "org": Names(
            known=(
                *("Lincoln Motors", "Jackson University", "Sydney Airlines", "Austin Records"),
                *("Bank of Georgia", "Hughes Foundation", "Washington Daily", "Northwind"),
                *("Victoria Hospital", "Brown and Clarke", "Madison Steel", "Optima"),
                *("Dallas Museum", "Warren College", "Telnova"),
            ),
            held_out=(
                *("Hamilton Motors", "Kent University", "Bank of Scotland", "Denver Daily"),
                *("Savannah Hospital", "Price and Wells", "Houston Steel", "Brightsea"),
                *("Chester College", "Veridia"),
            ),
        ),
        "club": Names(
            known=(
                *("Houston Hawks", "Chelsea Rovers", "Real Madison", "Sydney Lions", "Rangers"),
                *("Dallas Wanderers",),
            ),
            held_out=("Denver Hawks", "Chester Rovers", "Kent Lions", "Wolves"),
        ),
    },
    fillers={
        "when": (
            *("yesterday", "last week", "on Friday", "this morning", "in April", "last winter"),
            *("two days ago", "after lunch", "on Sunday", "this year"),
        ),
        "thing": (
            *("bridge", "old library", "market", "bank", "museum", "station", "garden", "school"),
            *("stadium", "theatre", "new hospital", "university"),
        ),
        "job": ("engineer", "nurse", "teacher", "driver", "lawyer", "cook", "director", "guard"),
        "common": (
            *("a rose", "a jack", "the china", "a turkey", "a mark", "the bill", "an olive"),
            *("a pearl", "a ruby", "the cologne", "a jersey", "the champagne"),
        ),
    },
    patterns=(
        "{per} travelled to {loc} with {per} {when} .",
        "{per} works for {org} in {loc} .",
        "{club} beat {club} in {loc} .",
        "{club} lost to {club} by two goals {when} .",
        "{org} opened an office in {loc} {when} .",
        "{org} hired {per} as a {job} .",
        "according to {per} , the road to {loc} is closed .",
        "the {thing} in {loc} belongs to {org} .",
        "{per} was born in {loc} and lives in {loc} .",
        "shares in {org} fell {when} .",
        "{per} and {per} met at the {thing} {when} .",
        "the mayor of {loc} thanked {per} for the {thing} .",
        "{when} , {org} dismissed {per} .",
        "{per} left {org} to work for {org} .",
        "trains from {loc} to {loc} were late {when} .",
        "a letter from {per} arrived in {loc} {when} .",
        "{per} , a {job} at {org} , bought a house near {loc} .",
        "it rained all day in {loc} , and the {thing} was closed .",
        "the fans of {club} sang in the streets of {loc} .",
        "{per} scored twice for {club} {when} .",
        "workers at {org} went on strike {when} .",
        "the {job} {per} saw {common} at the {thing} .",
        "our neighbour {per} sold the {thing} to {org} .",
        "{loc} is colder than {loc} , the {job} said .",
        "{org} and {org} share the {thing} .",
        "{per} showed {per} {common} .",
    ),
    nameless=(
        "the {thing} was closed {when} .",
        "the {job} saw {common} near the {thing} .",
        "{when} , the {job} left the {thing} early .",
        "will the {thing} open {when} ?",
        "hope and grace brought the {job} to the {thing} .",
        "rose bushes grow behind the {thing} .",
        "may is the best month , said the {job} .",
        "{common} lay on the table {when} .",
        "the {job} works at the {thing} and knows the {job} .",
        "mark the bill and bring {common} to the {thing} .",
    ),
)

GRAMMAR = Grammar(opinions=_OPINIONS, mentions=_MENTIONS, spaced=True)
