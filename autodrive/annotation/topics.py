"""What can be asked about a clip in free words: per topic how to read the answer off the facts, and its wordings.

Questions hold no fact of a clip and are worded alike whatever the answer is, so that nothing in them says it. In
wordings `{ego}` is the vehicle with the camera, `{other}` the other road user, and `{value}` the answer as it was read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from autodrive.annotation.facts import HazardFacts, WindowFacts
from autodrive.annotation.phrases import (
    IMPACT_SIDES,
    LIGHT,
    MOTIONS,
    ROAD_USERS,
    WEATHER,
    evasion,
    metres,
    seconds,
    touches,
)
from autodrive.schema import DrivingEvent

Aspect = Literal["spatial", "environmental", "causal", "blame", "temporal", "driving"]
NUMBER = "number"  # key of the wordings of answers that are figures
EDGE_S = 0.1  # what begins or ends this close to an edge of the window may have been cut there


@dataclass(frozen=True)
class Topic:
    """One thing to ask.

    Attributes:
        key: Name of the topic.
        aspect: What it is about.
        read: The answer as a value, read off the facts; None where it is not known.
        questions: Wordings of the question.
        answers: Wordings of the answer by value. Under `NUMBER` those of a figure, which is as good as never the same
            twice: such topics need no balance.
    """

    key: str
    aspect: Aspect
    read: Callable[[WindowFacts], str | None]
    questions: tuple[str, ...]
    answers: Mapping[str, tuple[str, ...]]

    @property
    def is_figure(self) -> bool:
        """Whether answers are figures."""
        return NUMBER in self.answers

    def value(self, facts: WindowFacts) -> str | None:
        """The answer as a value; None where it is not known, or there are no words for it."""
        value = self.read(facts)
        return value if self.is_figure or value in self.answers else None


def _of_hazard(read: Callable[[HazardFacts], str | None]) -> Callable[[WindowFacts], str | None]:
    return lambda facts: None if facts.hazard is None else read(facts.hazard)


def _yes_no(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def _motion(hazard: HazardFacts) -> str | None:
    return None if hazard.motion == "slows_ahead" and hazard.other_brakes is False else hazard.motion


def _gap(facts: WindowFacts) -> str | None:
    """How much room is left to the other road user; of one who strikes from behind nobody knows the distance."""
    hazard = facts.hazard
    if hazard is None or hazard.min_gap_m is None or hazard.impact_side == "rear" or facts.ego_involved is False:
        return None
    if touches(facts):
        return "touch"
    return "close" if hazard.min_gap_m < 1 else "near" if hazard.min_gap_m < 3 else "far"


def _third(facts: WindowFacts) -> str | None:
    if facts.hazard is None:
        return None
    return ("beginning", "middle", "end")[min(2, int(facts.hazard.time_s / facts.duration_s * 3))]


def _blame(facts: WindowFacts) -> str | None:
    if facts.ego_involved is False:
        return None
    return "nobody" if touches(facts) is False else facts.hazard and facts.hazard.blame


def _role(facts: WindowFacts) -> str | None:
    if facts.ego_involved is False:
        return None
    return "neither" if touches(facts) is False else facts.hazard and facts.hazard.ego_role


def _impact(facts: WindowFacts) -> str | None:
    if facts.ego_involved is False:
        return None
    return "none" if touches(facts) is False else facts.hazard and facts.hazard.impact_side


def _outcome(facts: WindowFacts) -> str | None:
    return None if facts.hazard is None or facts.ego_involved is False else facts.label


def _strongest(facts: WindowFacts) -> DrivingEvent | None:
    """The event with the largest acceleration, in whichever direction."""
    return max(facts.driving_events, key=lambda event: event.severity, default=None)


def _one(facts: WindowFacts, kind: str) -> DrivingEvent | None:
    """The event of a kind, if there is exactly one: of two nobody knows which is asked about."""
    found = [event for event in facts.driving_events if event.kind == kind]
    return found[0] if len(found) == 1 else None


def _whole_braking(facts: WindowFacts) -> DrivingEvent | None:
    """The only hard braking, if it neither reaches back before the window nor beyond it."""
    event = _one(facts, "harsh_braking")
    whole = event is not None and event.start_s > EDGE_S and event.end_s < facts.duration_s - EDGE_S
    return event if whole else None


def _braking_start(facts: WindowFacts) -> str | None:
    event = _whole_braking(facts)
    return None if event is None else seconds(event.start_s)


def _braking_length(facts: WindowFacts) -> str | None:
    event = _whole_braking(facts)
    return None if event is None else seconds(event.end_s - event.start_s)


def _braking_first(facts: WindowFacts) -> str | None:
    """Whether the ego begins to brake hard before the hazard begins or after; once only, and both inside the window."""
    event, hazard = _one(facts, "harsh_braking"), facts.hazard
    if event is None or hazard is None or hazard.onset_s is None or abs(event.start_s - hazard.onset_s) < 0.2:
        return None
    return "before" if event.start_s < hazard.onset_s else "after"


def _warning(facts: WindowFacts) -> str | None:
    if facts.alert_time_s is None or facts.event_time_s is None or facts.event_time_s - facts.alert_time_s < 0.1:
        return None
    return seconds(facts.event_time_s - facts.alert_time_s)


def _speed(hazard: HazardFacts) -> str | None:
    """In steps of 10 km/h; nobody reads it more exactly off a picture."""
    return None if hazard.initial_speed_mps is None else str(10 * round(hazard.initial_speed_mps * 3.6 / 10))


def _number_of_manoeuvres(facts: WindowFacts) -> str | None:
    """Only where there is one: a source that names none may not have looked."""
    return ("one", "two", "several")[min(3, len(facts.driving_events)) - 1] if facts.driving_events else None


def _both(facts: WindowFacts) -> str | None:
    return f"{facts.light} {facts.weather}" if facts.light in LIGHT and facts.weather in WEATHER else None


def _yes_and_no(yes: tuple[str, ...], no: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {"yes": ("Yes.", *yes), "no": ("No.", *no)}


TOPICS: tuple[Topic, ...] = (
    Topic(
        "side",
        "spatial",
        _of_hazard(lambda hazard: hazard.side),
        (
            "From where does {other} approach {ego}?",
            "On which side of {ego} is {other} at first?",
            "Where does {other} come from?",
            "Seen from {ego}, where is {other} to begin with?",
            "In which direction must the driver look to see {other} first?",
            "Does {other} come from the left, from ahead or from the right?",
        ),
        {
            "left": ("From the left.", "It is on the left.", "The left-hand side."),
            "right": ("From the right.", "It is on the right.", "The right-hand side."),
            "ahead": ("From straight ahead.", "It is ahead, in the same lane.", "Straight ahead."),
        },
    ),
    Topic(
        "road_user",
        "spatial",
        _of_hazard(lambda hazard: hazard.other_road_user),
        (
            "What kind of road user is {other}?",
            "Which road user does {ego} have to deal with?",
            "Who else matters most to {ego}?",
            "What is {other}: a vehicle, and of what kind, or a person on foot?",
            "Name the road user that the driver must watch most.",
            "Who comes into the way of {ego}, or nearly so?",
        ),
        {name: (f"A {words}.", f"It is a {words}.", f"{words.capitalize()}.") for name, words in ROAD_USERS.items()},
    ),
    Topic(
        "gap",
        "spatial",
        _gap,
        (
            "How close do {ego} and {other} get?",
            "How much room is left between {ego} and {other} at the closest moment?",
            "What is the least distance between {ego} and {other}?",
            "How near does {other} come to {ego}?",
            "Do {ego} and {other} keep their distance, and how much of it?",
            "At its smallest, how wide is the gap between {ego} and {other}?",
        ),
        {
            "touch": ("None: there is contact.", "No room is left, there is a collision.", "There is contact."),
            "close": ("Less than a metre: {gap}.", "Only {gap} is left.", "They are {gap} apart, less than a metre."),
            "near": ("Between one and three metres: {gap}.", "{Gap} is left, a car's width or so.", "About {gap}."),
            "far": ("Three metres or more: {gap}.", "At least {gap} is left.", "They keep {gap} apart."),
        },
    ),
    Topic(
        "impact_side",
        "spatial",
        _impact,
        (
            "Which side of {ego} is touched, if any?",
            "Where on {ego} is there contact, if there is any?",
            "Is {ego} hit or does it hit something, and with which side?",
            "Which part of {ego} takes a blow, if one does?",
            "If anything touches {ego}, where does it?",
            "At the front, the rear, the left or the right: where is {ego} touched, if anywhere?",
        ),
        {
            "none": ("Nowhere: nobody touches it.", "None, there is no contact.", "Nothing touches it."),
            **{s: (f"The {w}.", f"On its {w}.", f"Its {w} is touched.") for s, w in IMPACT_SIDES.items()},
        },
    ),
    Topic(
        "weather",
        "environmental",
        lambda facts: facts.weather,
        (
            "What is the weather like?",
            "In what weather does {ego} drive?",
            "Is there rain or fog, or is it clear?",
            "Which weather do the pictures show?",
            "Describe the weather in a few words.",
            "What does the weather do to the view?",
        ),
        {
            "clear": ("It is clear.", "Clear weather.", "No rain and no fog: it is clear."),
            "rain": ("It is raining.", "Rain.", "Rain falls."),
            "fog": ("It is foggy.", "Fog.", "Fog hides what is far away."),
        },
    ),
    Topic(
        "light",
        "environmental",
        lambda facts: facts.light,
        (
            "What is the light like?",
            "At what time of day was this recorded?",
            "How bright is it outside?",
            "Is it day, dusk or night?",
            "Which part of the day does the clip show?",
            "In what light does {ego} drive?",
        ),
        {
            "day": ("It is day.", "Daylight.", "It is bright, by day."),
            "dusk": ("It is dusk.", "The half-light of dusk.", "It is getting dark: dusk."),
            "night": ("It is night.", "Darkness: it is night.", "It is dark, at night."),
        },
    ),
    Topic(
        "conditions",
        "environmental",
        _both,
        (
            "Describe light and weather.",
            "In what light and weather does {ego} drive?",
            "What are the conditions on the road?",
            "What about light and weather makes it easy or hard to see?",
            "Under which conditions was the clip recorded?",
            "Sum up the light and the weather.",
        ),
        {
            f"{light} {weather}": tuple(f"{first.capitalize()}, {second}." for first in by for second in in_)
            for light, by in LIGHT.items()
            for weather, in_ in WEATHER.items()
        },
    ),
    Topic(
        "reduced_view",
        "environmental",
        lambda facts: (
            None
            if facts.light not in LIGHT or facts.weather not in WEATHER
            else _yes_no(facts.light != "day" or facts.weather != "clear")
        ),
        (
            "Do light or weather make it harder to see?",
            "Is the view worse than on a clear day?",
            "Must the driver of {ego} see through fog, rain or darkness?",
            "Is it harder to see than by clear day?",
            "Is there anything in light or weather that hides things?",
            "Do the conditions call for extra care?",
        ),
        _yes_and_no(
            ("Yes, it is harder to see than on a clear day.", "Yes, light or weather limit the view."),
            ("No, it is a clear day.", "No, it is day and the weather is clear."),
        ),
    ),
    Topic(
        "motion",
        "causal",
        _of_hazard(_motion),
        (
            "What does {other} do?",
            "Why must the driver of {ego} pay attention to {other}?",
            "What brings {other} near {ego}?",
            "How does the situation come about?",
            "What is it that {ego} has to react to?",
            "Which movement of {other} matters here?",
        ),
        {
            key: tuple(f"{'It' if key != 'walks_in' else 'The pedestrian'} {words}." for words in phrases)
            for key, phrases in MOTIONS.items()
        },
    ),
    Topic(
        "evasion",
        "causal",
        evasion,
        (
            "What does the driver of {ego} do about {other}?",
            "Does the driver of {ego} brake hard, swerve, do both or neither?",
            "How does the driver of {ego} react?",
            "What is the reaction of {ego}?",
            "Which way of evading does the driver of {ego} try, if any?",
            "What does {ego} do to keep clear of {other}?",
        ),
        {
            "brakes": ("The driver brakes hard.", "Hard braking.", "It brakes hard and keeps its course."),
            "steers": ("The driver swerves.", "A swerve.", "It swerves without braking hard."),
            "both": (
                "The driver brakes hard and swerves.",
                "Both braking and a swerve.",
                "It brakes hard and swerves.",
            ),
            "neither": ("Neither hard braking nor a swerve.", "Nothing sudden.", "It neither brakes hard nor swerves."),
        },
    ),
    Topic(
        "outcome",
        "causal",
        _outcome,
        (
            "What becomes of the situation?",
            "How does it end for {ego}?",
            "What does it lead to in the end?",
            "Does it come to a collision, nearly to one, or to nothing?",
            "What is the result for {ego}?",
            "How serious does it get?",
        ),
        {
            "collision": ("A collision.", "It ends in a collision.", "It comes to a collision."),
            "near_collision": (
                "A near-collision.",
                "A collision is narrowly avoided.",
                "It nearly comes to a collision.",
            ),
            "normal": ("Nothing: everybody drives on.", "Nothing comes of it.", "It stays normal driving."),
        },
    ),
    Topic(
        "contact",
        "causal",
        lambda facts: None if facts.ego_involved is False else _yes_no(touches(facts)),
        (
            "Is there any contact between {ego} and somebody else?",
            "Does {ego} hit anything or get hit?",
            "Does anybody touch {ego}?",
            "Is {ego} in a collision?",
            "Would you find a dent in {ego} after this clip?",
            "Do {ego} and anybody else run into each other?",
        ),
        _yes_and_no(
            ("Yes, there is a collision.", "Yes, there is contact."),
            ("No, there is no contact.", "No, nobody touches it."),
        ),
    ),
    Topic(
        "blame",
        "blame",
        _blame,
        (
            "Who is to blame for a collision, if there is one?",
            "Whose fault is it, if anything happens?",
            "If there is contact, who caused it?",
            "Who would an insurer hold responsible, if anybody?",
            "Is the driver of {ego} at fault, somebody else, or nobody?",
            "Who should have acted otherwise to prevent a collision, if there was one?",
        ),
        {
            "ego": ("The driver of {ego}.", "{Ego} is at fault.", "The driver with the camera."),
            "other": ("The other party.", "Not {ego}: the other party.", "The other party is at fault."),
            "nobody": (
                "Nobody: there is no collision.",
                "No one, nothing is hit.",
                "There is no collision to blame on anybody.",
            ),
        },
    ),
    Topic(
        "role",
        "blame",
        _role,
        (
            "Does {ego} strike somebody, is it struck, or neither?",
            "Which part does {ego} play in a collision, if there is one?",
            "Is {ego} the one that hits or the one that is hit, if any?",
            "Who runs into whom, if anybody does?",
            "Striking or struck: which is {ego}, if either?",
            "In case of contact, from whom does it come?",
        ),
        {
            "striking": ("{Ego} strikes.", "It is the one that hits.", "{Ego} runs into the other party."),
            "struck": ("{Ego} is struck.", "It is the one that is hit.", "The other party runs into {ego}."),
            "neither": ("Neither: there is no contact.", "Neither of the two.", "Nobody runs into anybody."),
        },
    ),
    Topic(
        "moment",
        "temporal",
        _of_hazard(lambda hazard: seconds(hazard.time_s)),
        (
            "When does it get most critical for {ego}?",
            "When is the most critical moment?",
            "How many seconds into the clip is the critical moment?",
            "At which second does the situation come to a head?",
            "At what time is the danger to {ego} greatest?",
            "Give the time of the critical moment.",
        ),
        {NUMBER: ("At {value}.", "{value} into the clip.", "After {value}.")},
    ),
    Topic(
        "third",
        "temporal",
        _third,
        (
            "In which part of the clip is the critical moment?",
            "Is the critical moment at the beginning, in the middle or at the end?",
            "Which third of the clip holds the critical moment?",
            "Does it come to a head early, midway or late?",
            "How far into the clip does it get critical?",
            "Early, midway or late: when does it get critical?",
        ),
        {
            "beginning": ("At the beginning.", "In the first third.", "Early, in the first third of the clip."),
            "middle": ("In the middle.", "In the second third.", "Midway through the clip."),
            "end": ("At the end.", "In the last third.", "Late, in the last third of the clip."),
        },
    ),
    Topic(
        "onset",
        "temporal",
        _of_hazard(lambda hazard: None if hazard.onset_s is None else seconds(hazard.onset_s)),
        (
            "When does the situation begin to develop?",
            "At what time does {other} begin to come into the way?",
            "How many seconds into the clip does {other} start what it does?",
            "From which second on is there something to watch?",
            "When does {other} start to matter to {ego}?",
            "At which time does the encounter with {other} start?",
        ),
        {NUMBER: ("At {value}.", "{value} into the clip.", "From {value} on.")},
    ),
    Topic(
        "warning",
        "temporal",
        _warning,
        (
            "How long before the critical moment can the driver see it coming?",
            "How much time does the driver of {ego} have to react?",
            "How many seconds lie between the first sign and the critical moment?",
            "How much warning does the driver of {ego} get?",
            "How long does the danger last before it comes to a head?",
            "For how long could the driver have acted?",
        ),
        {NUMBER: ("{value}.", "About {value}.", "The driver has {value}.")},
    ),
    Topic(
        "braking_first",
        "temporal",
        _braking_first,
        (
            "Does the driver of {ego} brake hard before the situation develops, or after?",
            "Which comes first: hard braking, or the situation with {other}?",
            "Is the hard braking an answer to what {other} does, by its time?",
            "In which order do hard braking and the situation with {other} begin?",
            "When {other} comes into play, has the hard braking begun already?",
            "Put in order: {ego} brakes hard, and {other} comes into play.",
        ),
        {
            "before": (
                "The hard braking comes first.",
                "Before.",
                "First {ego} brakes hard, then {other} comes into play.",
            ),
            "after": ("{Other} comes first.", "After.", "First {other} comes into play, then {ego} brakes hard."),
        },
    ),
    Topic(
        "manoeuvre",
        "driving",
        lambda facts: None if (event := _strongest(facts)) is None else event.kind,
        (
            "Which harsh manoeuvre does {ego} make?",
            "What is the strongest manoeuvre of {ego}?",
            "Which of its manoeuvres would shake the passengers of {ego} most?",
            "Name the harshest thing that the driver of {ego} does.",
            "In which way is {ego} driven harshly?",
            "What would a safety score mark down in the driving of {ego}?",
        ),
        {
            "harsh_braking": ("Hard braking.", "{Ego} brakes hard.", "It is hard braking."),
            "harsh_acceleration": ("Hard acceleration.", "{Ego} accelerates hard.", "It speeds up sharply."),
            "harsh_cornering": ("Sharp steering.", "{Ego} is steered sharply.", "Hard cornering or a swerve."),
            "excess_speed_in_turn": (
                "A bend taken too fast.",
                "{Ego} goes too fast through a bend.",
                "Too much speed in a bend.",
            ),
        },
    ),
    Topic(
        "hard_braking",
        "driving",
        _of_hazard(lambda hazard: _yes_no(hazard.ego_brakes)),
        (
            "Does {ego} brake hard at any time?",
            "Is {ego} braked hard in this clip?",
            "Would the seat belts of {ego} tighten under braking?",
            "Is there any hard braking by {ego}?",
            "Does the driver of {ego} step on the brake hard?",
            "Does {ego} slow down sharply by braking?",
        ),
        _yes_and_no(
            ("Yes, it brakes hard.", "Yes, there is hard braking."), ("No, it does not.", "No, it never brakes hard.")
        ),
    ),
    Topic(
        "other_brakes",
        "driving",
        lambda facts: (
            None
            if facts.hazard is None or facts.hazard.other_road_user == "pedestrian"
            else _yes_no(facts.hazard.other_brakes)
        ),
        (
            "Does {other} brake?",
            "Is {other} braking at any time?",
            "Does the driver of {other} use the brakes?",
            "Do the brakes of {other} come on?",
            "Does {other} try to slow down?",
            "Is there any sign that {other} brakes?",
        ),
        _yes_and_no(
            ("Yes, it brakes.", "Yes, its brakes are on for a while."), ("No, it does not brake.", "No, it never does.")
        ),
    ),
    Topic(
        "braking_start",
        "driving",
        _braking_start,
        (
            "When does {ego} begin to brake hard?",
            "At what time does the hard braking of {ego} set in?",
            "How many seconds into the clip is the brake of {ego} hit hard?",
            "From when on does {ego} brake hard?",
            "Give the time at which the hard braking starts.",
            "At which second does the driver of {ego} brake hard?",
        ),
        {NUMBER: ("At {value}.", "{value} into the clip.", "From {value} on.")},
    ),
    Topic(
        "braking_length",
        "driving",
        _braking_length,
        (
            "For how long does {ego} brake hard?",
            "How long does the hard braking last?",
            "How many seconds of hard braking are there?",
            "What is the length of the hard braking?",
            "How much time does {ego} spend braking hard?",
            "From its start to its end, how long is the hard braking of {ego}?",
        ),
        {NUMBER: ("For {value}.", "{value}.", "It lasts {value}.")},
    ),
    Topic(
        "speed",
        "driving",
        _of_hazard(_speed),
        (
            "About how fast is {ego} when the situation begins?",
            "At roughly what speed does {ego} travel at first?",
            "How many kilometres per hour does {ego} do, to the nearest ten?",
            "What would the speedometer of {ego} show as {other} comes into play?",
            "Estimate the speed of {ego} before it has to react.",
            "Is {ego} fast or slow, in kilometres per hour?",
        ),
        {str(kmh): (f"About {kmh} km/h.", f"{kmh} km/h or so.", f"Roughly {kmh} km/h.") for kmh in range(0, 210, 10)},
    ),
    Topic(
        "num_manoeuvres",
        "driving",
        _number_of_manoeuvres,
        (
            "How many harsh manoeuvres does {ego} make?",
            "Count the harsh manoeuvres of {ego}.",
            "Is {ego} driven harshly once, twice or more often?",
            "How often does the driver of {ego} brake, accelerate or steer harshly?",
            "How many entries would this clip add to a log of harsh driving?",
            "How many times does {ego} shake its passengers?",
        ),
        {
            "one": ("One.", "Once.", "A single one."),
            "two": ("Two.", "Twice.", "There are two."),
            "several": ("More than two.", "Three or more.", "Several: three or more."),
        },
    ),
)


def fields_of(facts: WindowFacts) -> dict[str, str]:
    """What wordings of answers may name beside the value."""
    gap = facts.hazard and facts.hazard.min_gap_m
    return {} if gap is None else {"gap": metres(gap), "Gap": metres(gap)}
