"""Spanish words and sentence patterns of the demo: tables alone, read by `demo_grammars`."""

from crosstune.data.synthetic.grammar import Aspect, Domain, Grammar, Mentions, Names, Opinions

_GOOD = "agradable admirable brillante"
_BAD = "lamentable decepcionante frustrante"
_GOODS = "agradables admirables brillantes"
_BADS = "lamentables decepcionantes frustrantes"

_RESTAURANT = Domain(
    words={
        "visit": "cenamos en este restaurante",
        "here": "en este restaurante",
        "there": "en el otro restaurante",
        "here_short": "en este",
        "there_short": "en el otro",
    },
    aspects=(
        Aspect("la comida", "sg", f"{_GOOD} sabrosa", f"{_BAD} sosa"),
        Aspect("la sopa", "sg", f"{_GOOD} sabrosa", f"{_BAD} sosa"),
        Aspect("los postres", "pl", f"{_GOODS} sabrosos", f"{_BADS} sosos"),
        Aspect("el servicio", "sg", f"{_GOOD} amable", f"{_BAD} lento"),
        Aspect("los camareros", "pl", f"{_GOODS} amables", f"{_BADS} groseros"),
    ),
)
_HOTEL = Domain(
    words={
        "visit": "dormimos en este hotel",
        "here": "en este hotel",
        "there": "en el otro hotel",
        "here_short": "en este",
        "there_short": "en el otro",
    },
    aspects=(
        Aspect("las habitaciones", "pl", f"{_GOODS} modernas", f"{_BADS} oscuras"),
        Aspect("la cama", "sg", f"{_GOOD} cómoda", f"{_BAD} dura"),
        Aspect("el desayuno", "sg", f"{_GOOD} sabroso", f"{_BAD} soso"),
        Aspect("el personal", "sg", f"{_GOOD} amable", f"{_BAD} grosero"),
        Aspect("el baño", "sg", f"{_GOOD} moderno", f"{_BAD} oscuro"),
    ),
)
_SERIES = Domain(
    words={
        "visit": "estuvimos viendo esta serie",
        "here": "en esta serie",
        "there": "en la otra serie",
        "here_short": "en esta",
        "there_short": "en la otra",
    },
    aspects=(
        Aspect("la trama", "sg", f"{_GOOD} original", f"{_BAD} aburrida"),
        Aspect("los actores", "pl", f"{_GOODS} originales", f"{_BADS} aburridos"),
        Aspect("los diálogos", "pl", f"{_GOODS} originales", f"{_BADS} lentos"),
        Aspect("la música", "sg", f"{_GOOD} original", f"{_BAD} aburrida"),
        Aspect("el final", "sg", f"{_GOOD} original", f"{_BAD} lento"),
    ),
)
_PHONE = Domain(
    words={
        "visit": "nos compramos este teléfono",
        "here": "en este teléfono",
        "there": "en el otro teléfono",
        "here_short": "en este",
        "there_short": "en el otro",
    },
    aspects=(
        Aspect("la pantalla", "sg", f"{_GOOD} moderna", f"{_BAD} oscura"),
        Aspect("la batería", "sg", f"{_GOOD} fiable", f"{_BAD} lenta"),
        Aspect("la cámara", "sg", f"{_GOOD} fiable", f"{_BAD} lenta"),
        Aspect("los botones", "pl", f"{_GOODS} cómodos", f"{_BADS} duros"),
        Aspect("el sonido", "sg", f"{_GOOD} fiable", f"{_BAD} débil"),
    ),
)

_OPINIONS = Opinions(
    domains=(_RESTAURANT, _HOTEL, _SERIES, _PHONE),
    agreements={
        "sg": {
            "past": "era",
            "now": "es",
            "were": "fuera",
            "liked": "me gustó",
            "loved": "me encantó",
            "failed": "me decepcionó",
            "annoyed": "me molestó",
        },
        "pl": {
            "past": "eran",
            "now": "son",
            "were": "fueran",
            "liked": "me gustaron",
            "loved": "me encantaron",
            "failed": "me decepcionaron",
            "annoyed": "me molestaron",
        },
    },
    affirmed=(
        "{np} {past} {adjective}",
        "{np} {past} muy {adjective}",
        "{np} {past} realmente {adjective}",
        "{np} {past} bastante {adjective}",
    ),
    negated=(
        "{np} no {past} {adjective}",
        "{np} no {past} nada {adjective}",
        "{np} nunca {past} {adjective}",
    ),
    feelings={
        "good": (
            ("{liked} {np}", "no {liked} {np}"),
            ("{loved} {np}", "no {loved} {np}"),
            ("aprecié {np}", "no aprecié {np}"),
        ),
        "bad": (
            ("{failed} {np}", "no {failed} {np}"),
            ("{annoyed} {np}", "no {annoyed} {np}"),
            ("critiqué {np}", "no critiqué {np}"),
        ),
    },
    fillers={
        "when": (
            *("el sábado pasado", "el lunes", "hace dos semanas", "el verano pasado", "en mayo"),
            *("ayer", "por mi cumpleaños", "hace un mes", "después del trabajo", "en vacaciones"),
        ),
        "who": (
            *("mi hermano", "mi madre", "mi vecino", "una amiga", "la crítica", "mi jefa"),
            *("mi prima", "el periódico"),
        ),
    },
    plain=(
        "{pro1}",
        "{pro1} y {pro2}",
        "{pro1}, {pro2} y {pro3}",
        "{pro1} y, además, {pro2}",
        "la verdad es que {pro1}",
        "todos notamos que {fact}",
    ),
    overturned=(
        "aunque {con1}, {pro2}",
        "a pesar de que {con1}, {pro2}",
        "{con1}, pero {pro2}",
        "{con1}; sin embargo, {pro2}",
        "{con1} y {con2}, pero {pro3}",
        "esperaba que {np} {were} {bad}, pero {past} {good}",
        "antes {np} {past} {bad}, pero ahora {now} {good}",
        "{who} dice que {lie}, pero en realidad {past} {good}",
    ),
    scoped=(
        "{pro1}, aunque {con2}",
        "{who} dice que {lie}, pero se equivoca",
        "{who} dice que {fact}, y tiene razón",
        "ahora {np} {now} {good}; antes {past} {bad}",
        "{here} {np} {past} más {good} que {there_short}",
        "{there} {np} {past} más {bad} que {here_short}",
        "{here} {np} {past} menos {bad} que {there_short}",
        "{there} {np} {past} menos {good} que {here_short}",
        "no es verdad que {np} {were} {bad}",
        "nadie puede negar que {fact}",
        "{np} {past} cualquier cosa menos {bad}",
    ),
    opened="{when} {visit}. {body}.",
    closed="{body}.",
    lengths=(8, 25),
    verdicts={"good": ("Valoración: 5/5.",), "bad": ("Valoración: 1/5.",)},
    scored={
        "good": "{np} {past} {good} y {other}: 5/5.",
        "bad": "{np} {past} {good} y {other}: 1/5.",
    },
)

_MENTIONS = Mentions(
    names={
        "shared": Names(
            known=(
                *("Santiago", "Valencia", "Córdoba", "Mendoza", "Toledo", "León", "Rosario"),
                *("Mercedes", "Victoria", "Santander", "Guadalupe", "Zamora", "Trujillo", "Aranda"),
            ),
            held_out=(
                *("Segovia", "Cáceres", "Soledad", "Asunción", "Medina", "Dolores", "Lorca"),
                *("Cuenca", "Ávila", "Salvador"),
            ),
        ),
        "per": Names(
            known=(
                *("Ana", "Carlos Toledo", "Marta León", "Pedro", "Lucía Mendoza", "Javier"),
                *("Elena Zamora", "Victoria Ruiz", "Miguel", "Santiago Pérez", "Rosa Trujillo"),
                *("Pablo Aranda", "Mercedes Gil", "Sofía", "Andrés Valencia"),
            ),
            held_out=(
                *("Beatriz", "Diego Segovia", "Soledad Vega", "Tomás", "Laura Medina", "Hugo"),
                *("Nuria Córdoba", "Salvador Rey", "Julia Lorca", "Marcos"),
            ),
        ),
        "loc": Names(
            known=(
                *("Madrid", "Buenos Aires", "Río Grande", "Bogotá", "Puerto Rosario", "Perú"),
                *("Sierra Guadalupe", "Villa Mercedes", "Lima", "Nueva Zamora", "Costa Rica"),
                *("Isla Victoria", "Barcelona", "Calle Toledo", "San León"),
            ),
            held_out=(
                *("Sevilla", "Puerto Asunción", "Quito", "Villa Dolores", "San Salvador"),
                *("Isla Soledad", "Chile", "Calle Mendoza", "Nueva Medina", "Bilbao"),
            ),
        ),
        "org": Names(
            known=(
                *("Banco Toledo", "Universidad de Córdoba", "Grupo Mendoza", "Editorial Rosario"),
                *("Seguros Victoria", "Hospital de León", "Talleres Aranda", "Telenorte", "Optima"),
                *("Diario de Zamora", "Museo de Santander", "Aceros Trujillo", "Fundación Ruiz"),
                *("Radio Guadalupe", "Viajes Mercedes"),
            ),
            held_out=(
                *("Banco Segovia", "Universidad de Cuenca", "Grupo Lorca", "Editorial Soledad"),
                *("Hospital de Ávila", "Talleres Medina", "Telesur", "Diario de Valencia"),
                *("Fundación Vega", "Veridia"),
            ),
        ),
        "club": Names(
            known=(
                *("Atlético Mendoza", "Real León", "Deportivo Rosario", "Racing", "Rápido Zamora"),
                *("Sporting Toledo",),
            ),
            held_out=("Atlético Cuenca", "Real Medina", "Rápido Lorca", "Deportivo"),
        ),
    },
    fillers={
        "when": (
            *("ayer", "la semana pasada", "el viernes", "esta mañana", "en abril", "en invierno"),
            *("hace dos días", "después de comer", "el domingo", "este año"),
        ),
        "thing": (
            *("el puente", "la biblioteca", "el mercado", "el banco", "el museo", "la estación"),
            *(
                "el jardín",
                "la escuela",
                "el estadio",
                "el teatro",
                "el hospital",
                "la universidad",
            ),
        ),
        "job": (
            *("dentista", "periodista", "taxista", "artista", "guía", "electricista", "pianista"),
            *("economista",),
        ),
        "common": (
            *("una rosa", "un león", "un rosario", "la victoria", "la soledad", "una granada"),
            *("un ángel", "un reino", "una medina", "una leona", "la costa", "un salvador"),
        ),
    },
    patterns=(
        "{per} viajó a {loc} con {per} {when} .",
        "{per} trabaja para {org} en {loc} .",
        "el {club} venció al {club} en {loc} .",
        "el {club} perdió contra el {club} por dos goles {when} .",
        "{org} abrió una oficina en {loc} {when} .",
        "{org} contrató a {per} como {job} .",
        "según {per} , la carretera de {loc} está cortada .",
        "en {loc} , {thing} pertenece a {org} .",
        "{per} nació en {loc} y vive en {loc} .",
        "las acciones de {org} bajaron {when} .",
        "{per} y {per} visitaron {thing} {when} .",
        "la alcaldesa de {loc} felicitó a {per} {when} .",
        "{when} , {org} despidió a {per} .",
        "{per} dejó {org} para trabajar en {org} .",
        "los trenes de {loc} a {loc} llegaron tarde {when} .",
        "una carta de {per} llegó a {loc} {when} .",
        "{per} , {job} de {org} , compró una casa cerca de {loc} .",
        "llovió todo el día en {loc} , y {thing} cerró .",
        "la afición del {club} cantó en las calles de {loc} .",
        "{per} marcó dos goles para el {club} {when} .",
        "la plantilla de {org} inició una huelga {when} .",
        "mi primo {per} dibujó {common} desde {thing} .",
        "nuestra vecina {per} vendió su casa a {org} .",
        "en {loc} hace más frío que en {loc} , dijo mi {job} .",
        "{org} y {org} comparten {thing} .",
        "{per} soñó con {common} en {loc} .",
    ),
    nameless=(
        "{thing} cerró {when} .",
        "mi {job} dibujó {common} cerca de la plaza .",
        "{when} , mi {job} perdió las llaves .",
        "¿ cuándo abre {thing} ?",
        "rosa y gris son los colores preferidos de mi {job} .",
        "mercedes y favores no se piden {when} .",
        "mi {job} soñó con {common} {when} .",
        "dolores de cabeza y prisas : así llegó mi {job} {when} .",
        "victoria o derrota , mi {job} celebra {when} .",
        "mi {job} esperó en {thing} {when} .",
    ),
)

GRAMMAR = Grammar(opinions=_OPINIONS, mentions=_MENTIONS, spaced=True)
