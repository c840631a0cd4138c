"""Captions in our own words: bad ones by the gate that must catch them, and good ones.

The bad ones are what captioners were seen to write: refusals, loops, chat markers, boilerplate,
other languages, markup. The good ones hold what a careless gate would stumble over.
"""

from __future__ import annotations

BAD: dict[str, list[str]] = {
    "empty": ["", "  ", "...", "\n", "—", "🙂🙂", '""', "<>", "。。。"],
    "too_short": ["Dog.", "circle", "犬", "A"],
    "refusal": [
        "I'm sorry, but I can't help with that.",
        "I’m unable to view images directly.",
        "As an AI language model, I do not have eyes.",
        "As an AI assistant, I cannot open files.",
        "As a text-based AI, I have no way to look at pictures.",
        "Unfortunately, I cannot see any picture here.",
        "Unfortunately, the image did not come through.",
        "Please provide an image so that I can describe it.",
        "Could you please upload the picture again?",
        "There is no image attached to your message.",
        "No image was provided.",
        "I cannot assist with this request.",
        "I apologize, but I'm not able to identify the people in it.",
        "I can't identify real people from their faces.",
        "I won't describe this photo in detail.",
        "I don't feel comfortable describing this picture.",
        "I'm not comfortable with writing a caption for this.",
        "It seems you haven't attached the picture yet.",
        "It looks like no image was uploaded with your request.",
        "The image could not be loaded, please try again.",
        "My apologies, I only work with text.",
        "Sorry, I can only answer questions about text.",
        "This request goes against my guidelines.",
        "I must decline to describe what is shown.",
        "Apologies, I can't seem to open this file.",
        "I'm an AI and cannot look at pictures.",
        "The attached image is not accessible.",
        "No description available.",
        "N/A",
        "抱歉，我无法识别图片中的人物。",
        "对不起，我不能描述这张图片的内容。",
        "申し訳ありませんが、この画像を説明することはできません。",
        "죄송합니다. 이 사진을 설명할 수 없습니다.",
        "Lo siento, pero no puedo ayudar con esta imagen.",
        "Es tut mir leid, aber ich kann keine Bilder sehen.",
        "Je suis désolé, mais je ne peux pas voir cette image.",
        "Извините, но я не могу описать это изображение.",
    ],
    "prompt_leak": [
        "Describe this image in one paragraph: the subject, its surroundings, a dog.",
        "the subject, its surroundings, the background, any text in it: a dog on grass.",
        "A dog on a lawn.<|im_end|>",
        "A dog on a lawn.<|im_end|>\n<|im_start|>assistant\nA dog.",
        "<|start_header_id|>assistant<|end_header_id|> A dog on a lawn.",
        "A barn in a field of rye.<｜end▁of▁sentence｜>",
        "<s>[INST] What is it? [/INST] A boat on a lake.",
        "<start_of_turn>model A kite above a beach.",
        "A kite above a beach </s>",
        "USER: what is this? ASSISTANT: a dog",
        "Human: Describe it. Assistant: A pear on a plate.",
        "assistant: a pear on a plate beside a knife",
        "### Assistant: a lighthouse on a cliff",
        "### Instruction: say what is there. A lighthouse.",
        "Question: what animal is this? Answer: a grey cat",
        "A chat between a curious user and an assistant. A cat sleeps.",
        "You are a helpful assistant. A cat sleeps on a chair.",
        "A dog. The text does not contain any imaginary content.",
        "A red barn. This description does not contain any imaginary content or guesses.",
        "A red barn stands by a road. The description is purely factual.",
        "A woman in a coat waits. As requested, no names are given.",
        "The alt text says that this is a dog.",
        "According to the alt text, two sisters sit on a bench.",
        "Based on the provided text, this is a festival in May.",
        "According to the descriptions provided, a tram passes a church.",
        "A tram passes a church. I hope this helps!",
        "A tram passes a church. Let me know if you need more detail.",
        "A tram passes a church. Feel free to ask for a longer version.",
        "Note: this description leaves out what cannot be seen. A tram.",
        "A tram, described without making assumptions about the people aboard.",
        "<image> a bowl of soup with a spoon",
    ],
    "reasoning": [
        "<think>The picture has a dog in it.</think> A dog.",
        "<think>\nFirst I look at the left side, where a dog stands.",
        "A dog stands on a lawn.</think>",
        "<thinking>four legs, fur</thinking> A dog on a lawn.",
        "<reasoning>it has a tail</reasoning> A dog on a lawn.",
        "The user wants a caption, so: a tram passes a church.",
    ],
    "options": ["1. A dog on a lawn.\n2. A fence behind it."],
    "garbled": ["A caf\ufffd with two tables outside."],
    "loop": [
        "A table with items: " + " ".join(f"{n}." for n in range(1, 120)),
        "Numbers: " + ", ".join(str(n) for n in range(10, 900, 10)),
        "A shelf with box 1, " + ", ".join(f"box {n}" for n in range(2, 60)),
        "a red car on a road, " * 12,
        "A dog stands on a lawn beside a fence. " + "the dog is brown and the dog is " * 8,
        "red red red red red red red red red red",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b",
        "The sky is blue. The sky is blue. The sky is blue. The sky is blue. The sky is blue.",
        "一只红色的鸟站在树枝上，" * 9,
        "красный дом у дороги и " * 10,
        "A wide market hall with stalls of fruit, people with bags and a clock above the gate. "
        + "There is a man in a hat. " * 7,
        "The number on the jersey is 10 10 10 10 10 10 10 10 10 10 10 10 10 10 10 10 10 10 10",
        "A poster with the letters A B A B A B A B A B A B A B A B A B A B A B A B A B A B A B",
        "A man and a woman and a man and a woman and a man and a woman and a man and a woman",
        "The scene is calm, quiet, calm, quiet, calm, quiet, calm, quiet, calm, quiet, calm, quiet",
        "hahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahaha",
        "A tall glass building reflects the clouds of the afternoon, with a row of young trees in "
        "front of it and a tiled square. It has many windows. It has many windows. It has many "
        "windows. It has many windows. It has many windows. It has many windows. It has many",
        "그 남자는 모자를 쓰고 있다. " * 8,
        "watermark, signature, " * 9,
        "A grey square bin with a lid that swings. " * 5,
        "A cup stands on the left side of the table. A plate stands on the left side of the table. "
        "A fork stands on the left side of the table. A jug stands on the left side of the table. "
        "A bowl stands on the left side of the table. A pan stands on the left side of the table.",
    ],
    "url_or_markup": [
        "**Subject:** a dog on a lawn",
        "- a dog\n- a lawn\n- a fence",
        "Seen in it:\n- a dog\n- a lawn",
        "# A dog\nIt stands on a lawn.",
        "<answer>A dog on a lawn.</answer>",
        "<caption>a dog on a lawn</caption>",
        "A dog, see https://example.com/dog for more.",
        "A picture from stockphotos.com of a dog",
        "a dog on a lawn www.dogs.example",
        "dog_on_lawn_final.jpg with a fence",
        "```a dog on a lawn```",
        '{"caption": "a dog on a lawn"}',
        '[{"object": "dog", "place": "lawn"}]',
        "{'caption': 'a dog on a lawn'}",
        "[0.12, 0.31, 0.55, 0.90] dog",
        "<ref>a dog</ref><box>(12,30),(44,50)</box>",
        'json {"caption": "a dog on a lawn"}',
        "a dog &amp; a cat on a lawn",
        "A dog<br>on a lawn",
        '<p class="x">A dog on a lawn</p>',
        "A dog ([source](page)) on a lawn",
        "| part | seen |\n| left | dog |",
        r"\boxed{A dog on a lawn}",
    ],
    "language": [
        "一只棕色的狗在绿色的草地上奔跑，背景是一道木栅栏和几棵高大的白桦树。",
        "茶色の犬が緑の芝生の上を走っていて、後ろには木の柵と白樺の木が見えます。",
        "갈색 개가 푸른 잔디 위를 달리고 있으며 뒤에는 나무 울타리와 자작나무가 있다.",
        "Коричневая собака бежит по зелёной лужайке, за ней видны деревянный забор и берёзы.",
        "Ein brauner Hund läuft über eine grüne Wiese, dahinter stehen ein Holzzaun und Birken.",
        "Un chien brun court sur une pelouse verte devant une clôture en bois et des bouleaux.",
        "Un perro marrón corre por el césped verde delante de una valla de madera y unos abedules.",
        "Um cão castanho corre pela relva verde em frente de uma cerca de madeira e de bétulas.",
        "كلب بني يركض على العشب الأخضر أمام سياج خشبي وعدة أشجار عالية.",
        "एक भूरा कुत्ता हरी घास पर दौड़ रहा है और पीछे लकड़ी की बाड़ और पेड़ हैं।",
        "A brown dog runs over grass. 背景中有一道木栅栏和几棵高大的白桦树，天空中有云。",
        "สุนัขสีน้ำตาลวิ่งอยู่บนสนามหญ้าสีเขียวหน้ารั้วไม้และต้นไม้สูง",
    ],
}
"""Gate -> captions that it must catch, English being expected."""

OPENINGS: dict[str, str] = {
    "The image shows a red car on a road.": "A red car on a road.",
    "the image depicts two dogs": "two dogs",
    "This picture shows that it rains.": "It rains.",
    "A photo of a dog on a lawn": "A dog on a lawn",
    "In the image, there are two cats on a sofa.": "Two cats on a sofa.",
    "The image is a close-up of a leaf.": "A close-up of a leaf.",
    "We can see a tall tree.": "A tall tree.",
    "Sure! Here is a short caption: a dog runs": "A dog runs",
    "Caption: A bird on a wire.": "A bird on a wire.",
    "This is a picture of a windmill.": "A windmill.",
    "The photograph captures a runner at the finish.": "A runner at the finish.",
    "Here we see a harbour at night.": "A harbour at night.",
    "In this photo, we can see a bridge.": "A bridge.",
    "Depicted in the image is a windmill beside a canal.": "A windmill beside a canal.",
    "The main subject of the image is a grey horse.": "A grey horse.",
    "Image description: two cups on a tray.": "Two cups on a tray.",
    "An image featuring a bowl of plums.": "A bowl of plums.",
    "Shown here is a wooden bridge.": "A wooden bridge.",
    "The scene portrays a market in the rain.": "A market in the rain.",
    "In this image a goat climbs a rock.": "A goat climbs a rock.",
    "May be an image of a goat on a rock.": "A goat on a rock.",
    "A picture of a ship hangs above a sofa.": "A picture of a ship hangs above a sofa.",
    "Das Bild zeigt a goat.": "Das Bild zeigt a goat.",
}
"""A caption with an opening about the picture -> what is left of it; the last two must stay."""

GOOD: list[str] = [
    # Colours and shapes again and again.
    "a large red circle in the top left, a small blue square in the bottom right, a large red "
    "circle in the bottom left, a small green ring in the top right, on a plain gray background",
    "A row of red, red, red and blue tulips.",
    "Six cups stand on a shelf: a white cup, a blue cup, a white cup with a chip, a green cup, a "
    "tall white cup and a cup without a handle.",
    "A blue door in a blue wall under a blue awning; a woman in a blue dress walks past with a "
    "blue bicycle, and even the cobbles look blue in the shade.",
    "Black squares and white squares alternate on a chess board; the white queen stands on a "
    "white square, the black queen on a black square.",
    "Two dogs, one brown and one white, run after a yellow ball on a lawn; behind them a wooden "
    "fence and three birch trees under a cloudy sky",
    "A bowl of soup with carrots, peas and noodles stands on a checked tablecloth. A spoon lies "
    "beside it. Steam rises from the bowl.",
    "The left shelf holds jars of red beans, the middle shelf jars of white beans, the right "
    "shelf jars of black beans, and a cat sleeps below all of them.",
    # Quoted text in the picture, addresses among it.
    'A storefront with the text "www.example.com" painted above a blue door.',
    "A van with 'https://bakery.example/order' in yellow letters on its side.",
    "A tote bag that reads “visit shop.example.org today” hangs from a chair.",
    "A screen shows the line \"<div class='box'>\" in green on black.",
    'A sticker on a laptop says "**bold** claims".',
    "Ein Plakat? No: a poster with the words „Besuchen Sie www.stadt.example“ on a pillar.",
    "A neon sign spells 'I'm sorry, I can't' above an empty dance floor.",
    'A protest: one banner reads "I can\'t breathe", another is blank.',
    "A sign that says 'Sorry, we are closed' hangs on a wooden door.",
    'A cartoon robot holds a card with "As an AI, I need coffee" on it.',
    "A shop sign reads 「東京ラーメン」 above a curtain in a narrow street at night.",
    "A red banner with “热烈欢迎各位来宾参加今天的开幕仪式” hangs across a hotel entrance.",
    "A chalkboard with 'USER: guest' and 'SYSTEM: off' in two columns.",
    'A terminal window; its last line is "</s> <|endoftext|>" in white.',
    # What sounds like a refusal, a chat or a task and is none.
    "I Can't Believe It's Butter, a yellow tub on a kitchen shelf.",
    "Sorry! is printed on the box of a board game beside four coloured pawns.",
    "There is no picture in the gold frame, only a hook and a pale square on the wall.",
    "A laptop screen with a chat between a user and an assistant; the user asks for help.",
    "An image sensor on a green circuit board, seen from above.",
    "A waiter serves soup as the guests requested, in deep blue bowls.",
    "A human and a robot arm reach for the same apple.",
    "A caption contest winner holds a framed cartoon in front of a brick wall.",
    "A photo album lies open on a table; one picture shows a beach.",
    "Students follow the instructions on a whiteboard and fold paper cranes.",
    "A hypothetical plan of a city in blue ink, with a river and three bridges.",
    "A man at a help desk answers a question from a woman with a stroller.",
    "A model of a ship in a bottle: three masts, paper sails, a cork.",
    "A system of pulleys lifts a piano through a window.",
    # Numbers, lists and measures.
    "A bingo card with the numbers 4, 11, 23, 35, 48, 52, 60, 64, 71 and 75, five of them marked.",
    "A scoreboard: home 3, guest 2, third period, 07:41 left.",
    "A ruler from 0 to 30 cm lies under a leaf that ends at 12.5 cm.",
    "A calendar page for May 2021; the 1st, 8th, 15th, 22nd and 29th are Saturdays in red.",
    "A black and white photo of a man. He holds a hat, about 3.5 metres from a wall.",
    "A receipt lists bread 2.40, milk 1.10, eggs 3.25 and a total of 6.75.",
    "A digital clock shows 12:34; beside it a thermometer reads -5 °C and a barometer 1,013 hPa.",
    "A 1967 VW bus, licence plate AB-123-C, parked 2 m from a hydrant.",
    "A periodic table: H 1, He 2, Li 3, Be 4, B 5, C 6, N 7, O 8, F 9 and Ne 10 in its top rows.",
    # Names and letters beyond ASCII.
    "Søren Kierkegaard's statue in Copenhagen, with snow on its shoulders.",
    "Frida Kahlo in a Tehuana dress before her house in Coyoacán, a monkey on her arm.",
    "A café in Łódź with an Art Nouveau façade and two round tables outside.",
    "Björk sings on a stage in Reykjavík, lit in green.",
    "Nguyễn Huệ street in Hồ Chí Minh City at dusk, crowded with mopeds and lanterns.",
    "The Đurđevića Tara bridge spans a deep gorge in Montenegro.",
    "Dvořák's portrait hangs above a piano in a room with striped wallpaper.",
    "A jar of Müller's Brombeergelee and a jar of crème fraîche on a marble counter.",
    "The kanji 山 drawn in thick ink strokes on rough paper, with a red seal.",
    "A plate of jalapeño poppers, a glass of piña colada and a bowl of açaí.",
    # Poems, speech, styles.
    "Row, row goes the boat, gently, gently down the stream, a child at each oar, both singing.",
    "The fog comes in, the fog goes out, and in between a lighthouse blinks its slow and yellow "
    "eye over a sea that nobody can see.",
    "Still life, oil on canvas: a skull, a candle, a lute with a broken string; vanitas, all is "
    "vanity, says the ribbon below.",
    "A painting of a harbour at dusk, loose brush strokes, boats moored along a stone quay.",
    "A watercolour, wet on wet, of hills behind hills behind hills, each paler than the last.",
    "A comic in four panels: a cat looks at a fish, the fish looks at the cat, the cat looks away, "
    "the fish is gone.",
    "Pixel art of a knight, 16 by 16, in four shades of green.",
    "Dawn; a heron; one leg; no wind.",
    "A mother says hello to a baby, the baby says nothing, the dog says everything.",
    # Typical long ones.
    "An elderly man with a white beard and round glasses sits on a park bench and feeds pigeons "
    "from a paper bag. He wears a brown tweed jacket and a flat cap. Behind him, autumn leaves "
    "cover the path, and a child on a red scooter passes a cast-iron lamp post. The light is low "
    "and golden, and long shadows fall across the grass.",
    "A close-up of a circuit board: a square black chip in the centre with silver legs on all four "
    "sides, small capacitors around it, copper traces in the green lacquer, and the white label U7 "
    "beside a crystal.",
    "A busy kitchen seen from the pass. In front, a cook in a white apron slices leeks; behind her "
    "two others watch a tall pot. Copper pans hang in a row above a steel counter, steam blurs the "
    "lamps, and a handwritten list of orders is clipped to a rail.",
    "A map of an island in an old style: a compass rose in the lower left, a sea serpent in the "
    "upper right, mountains drawn as small brown humps, and a dotted line from the harbour to a "
    "cross in the forest.",
    "A cross-section of a leaf under the microscope, with the upper epidermis, long palisade "
    "cells full of chloroplasts, loose spongy tissue, and a stoma between two guard cells.",
    "a red fox in deep snow, its breath visible, one paw lifted, birches out of focus behind it",
    "Night market, rain, umbrellas, reflections of red and yellow signs in the wet asphalt.",
    "A line graph rises from 2 in January to 9 in June, falls to 4 in September, and ends at 6 in "
    "December; the axis on the left is labelled thousands of visitors.",
]
"""Captions of the descriptive kind that no gate may touch."""

GOOD_SHORT: list[str] = [
    "a red circle",
    "Coca-Cola bottle",
    "A sleeping cat.",
    "Eiffel Tower at night",
    "IKEA",
    "Nike",
    "São Paulo",
    "3 eggs",
]
"""Captions of the short kind, where one word is enough."""
