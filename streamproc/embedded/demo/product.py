"""The products of the demo: invented names, made of words that any speech recogniser knows."""

from __future__ import annotations

import msgspec


class DemoProduct(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be shown; without a page it is a stranger that must not be recognised."""

    product_id: str
    title: str
    category: str
    facts: tuple[str, ...]  # sentences: the page's description, and what the presenter says
    has_page: bool = True

    @property
    def description(self) -> str:
        return " ".join(self.facts)


PRODUCTS = (
    DemoProduct(
        product_id="demo-orange-soda",
        title="Sunny Peak Orange Soda",
        category="Soft drinks",
        facts=(
            "A sparkling orange soda in a half litre can, made with real orange juice.",
            "It is fruity and not too sweet, and best when it is ice cold.",
        ),
    ),
    DemoProduct(
        product_id="demo-sardines",
        title="Blue Harbour Sardines",
        category="Canned fish",
        facts=(
            "Whole sardines in a flat blue tin, packed by hand in sunflower oil.",
            "Put the fish on warm toast with a little lemon and lunch is ready.",
        ),
    ),
    DemoProduct(
        product_id="demo-olive-oil",
        title="Silver Grove Olive Oil",
        category="Oil and vinegar",
        facts=(
            "Extra virgin olive oil in a dark green glass bottle, pressed on the day of the harvest.",
            "It tastes of fresh grass and pepper, just right for a tomato salad.",
        ),
    ),
    DemoProduct(
        product_id="demo-water",
        title="White Glacier Mineral Water",
        category="Water",
        facts=(
            "Still mineral water from a mountain spring in a clear blue bottle.",
            "The bottle is light and fits into every bag when you go hiking.",
        ),
    ),
    DemoProduct(
        product_id="demo-cereal",
        title="Happy Bee Honey Rings",
        category="Breakfast cereal",
        facts=(
            "Crunchy breakfast cereal rings with honey in a big yellow box.",
            "Children love the rings with cold milk in the morning.",
        ),
    ),
    DemoProduct(
        product_id="demo-tea",
        title="Moon Garden Chamomile Tea",
        category="Tea",
        facts=(
            "Twenty bags of chamomile tea in a purple box with a moon and white flowers.",
            "One cup before bed and you will sleep like a baby.",
        ),
    ),
    DemoProduct(
        product_id="demo-jam",
        title="Granny Rose Strawberry Jam",
        category="Jam",
        facts=(
            "Strawberry jam in a glass jar with a red checked lid, cooked in small pots.",
            "There are big pieces of strawberry in it, so good on pancakes.",
        ),
    ),
    DemoProduct(
        product_id="demo-peanut-butter",
        title="Big Bear Peanut Butter",
        category="Spreads",
        facts=(
            "Creamy peanut butter from roasted peanuts in a jar with a bear on it.",
            "No sugar and no palm oil, nothing but peanuts and a pinch of salt.",
        ),
    ),
    DemoProduct(
        product_id="demo-chips",
        title="Fire Dragon Paprika Chips",
        category="Snacks",
        facts=(
            "Thin potato chips with hot paprika in a bright red bag.",
            "They are really crunchy, perfect for a movie night with friends.",
        ),
    ),
    DemoProduct(
        product_id="demo-coffee",
        title="Black Heron Coffee Beans",
        category="Coffee",
        facts=(
            "Dark roasted coffee beans in a black bag with a copper band.",
            "It smells of chocolate and makes a strong espresso with a thick foam.",
        ),
    ),
    DemoProduct(
        product_id="demo-yogurt",
        title="Morning Cloud Blueberry Yogurt",
        category="Yogurt",
        facts=(
            "Creamy blueberry yogurt in a white cup with a silver lid.",
            "It is full of whole blueberries and has lots of protein.",
        ),
    ),
    DemoProduct(
        product_id="demo-apple-juice",
        title="Green Meadow Apple Juice",
        category="Juice",
        facts=(
            "Cloudy apple juice in a green carton, pressed from apples of old orchards.",
            "Nothing is added, it is just like biting into a ripe apple.",
        ),
    ),
)

STRANGERS = (
    DemoProduct(
        product_id="stranger-clock",
        title="alarm clock",
        category="Household",
        facts=("This old alarm clock has two bells and wakes up the whole house.",),
        has_page=False,
    ),
    DemoProduct(
        product_id="stranger-cactus",
        title="cactus",
        category="Plants",
        facts=("Look at my little cactus in its clay pot, it needs water once a month.",),
        has_page=False,
    ),
)
