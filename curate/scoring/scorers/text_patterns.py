"""Patterns of text that no person wrote for the picture, in RE2's syntax, for lower-case text."""

_EXTENSION = r"\.(jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif|jfif)"

# A text that is the name of a file and nothing else: it ends in an image extension, or it is one
# word that a camera, a phone, a screenshot tool or a content hash made.
FILE_NAME = "|".join(
    [
        rf"^\S*{_EXTENSION}(\?\S*)?$",
        rf"^[\w\-() ]{{1,80}}{_EXTENSION}$",
        r"^(img|image|dsc[nf_]?|dscf|dscn|pict?|p|photo|picture|scan|screenshot|screen[-_ ]?shot|"
        r"vid|wp|pxl|mvi|imgp|gopr|sam|cam|file|untitled|download|unnamed|thumb|thumbnail|"
        r"large|small|medium|banner|slide|asset|fullsizerender)[-_ ]*[\d(][-_\d()x ]*$",
        r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",  # a UUID
        r"^[0-9a-f]{16,}$",  # a content hash
        r"^[\d_\-]{5,}[a-z]?$",  # a number or a date
        r"^[a-z0-9]+([_\-][a-z0-9]+)*[_\-]\d{2,}([_\-x][a-z0-9]+)*$",  # words-joined_0123
    ]
)

# A text that stands for any picture: one of these is the whole text ...
_WHOLE_ENGLISH = (
    r"an? (image|photo|picture)|(the )?(image|photo|picture|photograph|pic|img|graphic|figure|"
    r"illustration|thumbnail|logo|icon|avatar|banner|background|placeholder|untitled|default|"
    r"none|null|undefined|n/?a|alt|alt text|caption|title|no title|no caption|no description|"
    r"description|image description|image alt text|product image|featured image|main image|"
    r"hero image|header image|cover image|profile (image|photo|picture)|no image|"
    r"no image available|image not (found|available)|image coming soon|loading|blank|spacer|"
    r"gallery image|post image|article image|stock (image|photo|photography|picture)|slide|home|"
    r"(home ?page|web ?site|site|page) (banner|image|photo|picture|logo|header)|sale|new arrivals?|"
    r"advert(isement)?)( ?#?\d+( ?(of|/) ?\d+)?)?"
)
# ... or what is left of it without these.
_PHRASES_ENGLISH = (
    r"(click|tap) (here|image|(to|on|for)( (enlarge|zoom|view|open|expand|image|more))?)|"
    r"(view|see) (larger|full|all|more|details)|enlarge (image|photo|picture)|zoom in|"
    r"(read|learn|show) more|continue reading|"
    r"buy now|shop now|add to (cart|bag|basket|wishlist|favou?rites)|free shipping|"
    r"(royalty|copyright)[ -]free|stock (photo|image|photography|vector|illustration|picture)s?\b|"
    r"shutterstock|istock|getty images|dreamstime|alamy|depositphotos|all rights reserved|"
    r"photo (by|credit|courtesy)|image (by|credit|courtesy|source)|(share|pin|save) (on|to|it)\b|"
    r"follow us|subscribe|sign up|log ?in to|lorem ipsum|(pinterest|facebook|twitter|instagram|"
    r"whatsapp) (icon|logo|button)|image (not found|coming soon|unavailable)|"
    r"high[- ]resolution (image|photo|picture)|free download|download (free|now|image|wallpaper)|"
    r"\d+ ?% off|(special|limited) offer|on sale|(best|lowest) price|for download|"
    r"[©®™]|\(c\) ?\d{4}|copyright"
)
# The same in other languages, by the words that their page builders and shops leave behind.
_WHOLE_OTHERS = (
    # German
    r"bild|foto|abbildung|grafik|titelbild|startseite|platzhalter|vorschaubild|produktbild|"
    r"kein bild( verfügbar| vorhanden)?|ohne titel|"
    # French
    r"photographie|illustration|vignette|accueil|sans titre|aucune image|image non disponible|"
    # Spanish, Portuguese, Italian
    r"imagen|sin título|sin imagen|imagen no disponible|portada|inicio|"
    r"imagem|sem título|sem imagem|imagem indisponível|"
    r"immagine|senza titolo|nessuna immagine|immagine non disponibile|"
    # Dutch, Polish
    r"afbeelding|geen afbeelding( beschikbaar)?|zonder titel|zdjęcie|obraz|brak zdjęcia|"
    # Russian
    r"изображение|фото|фотография|картинка|нет фото|нет изображения|без названия|"
    # Chinese, Japanese, Korean
    r"图片|照片|图像|暂无图片|画像|写真|画像なし|사진|이미지"
)
_PHRASES_OTHERS = (
    r"zum vergrößern( hier| bitte)? ?(an)?klicken|klicken sie (hier|auf)|mehr (erfahren|anzeigen)|"
    r"weiterlesen|jetzt kaufen|in den warenkorb|versandkostenfrei|alle rechte vorbehalten|"
    r"bildquelle|symbolbild|"
    r"cliquez (ici|pour agrandir|sur l.image)|agrandir l.image|en savoir plus|lire la suite|"
    r"acheter maintenant|ajouter au panier|livraison gratuite|tous droits réservés|crédit photo|"
    r"(haga|haz) clic( aquí| en la imagen)?( para ampliar)?|ver más|leer más|comprar ahora|"
    r"añadir al carrito|envío gratis|"
    r"todos los derechos reservados|"
    r"clique (aqui|para)|saiba mais|leia mais|comprar agora|adicionar ao carrinho|frete grátis|"
    r"todos os direitos reservados|"
    r"clicca (qui|per)|leggi tutto|acquista ora|aggiungi al carrello|spedizione gratuita|"
    r"tutti i diritti riservati|"
    r"klik (hier|om te vergroten|voor)|lees meer|in winkelwagen|gratis verzending|"
    r"kliknij|czytaj więcej|dodaj do koszyka|"
    r"нажмите|увеличить фото|читать далее|купить сейчас|в корзину|бесплатная доставка|"
    r"все права защищены|"
    r"点击(查看|放大|这里)|查看大图|立即购买|加入购物车|版权所有|"
    r"クリック(で拡大|して)|続きを読む|カートに入れる|送料無料|무료배송|장바구니"
)
WHOLE = rf"({_WHOLE_ENGLISH})|({_WHOLE_OTHERS})( ?#?\d+( ?/ ?\d+)?)?"
PHRASES = rf"{_PHRASES_ENGLISH}|{_PHRASES_OTHERS}"
URL = r"(https?://|www\.)\S+|\b[a-z0-9\-]+\.(com|org|net|io|co\.uk|de|ru|fr|info|biz)\b"
HTML = r"<[a-z/!][^<>]*>|&(amp|nbsp|quot|lt|gt|apos|#\d{1,6}|#x[0-9a-f]{1,6});"

EMAIL = r"[a-z0-9][a-z0-9._%+\-]*@[a-z0-9\-]+(\.[a-z0-9\-]+)*\.[a-z]{2,}\b"
# A number with a country code, in the North American form, or behind a word that announces one.
PHONE = "|".join(
    [
        r"(^|[^\w+])(\+|00)[1-9]\d{0,2}[\s().\-/]*\d([\s().\-/]{0,2}\d){6,12}($|\D)",
        r"(^|[^\d\-.])(\(\d{3}\) ?|\d{3}[\-. ])\d{3}[\-. ]\d{4}($|[^\d\-.])",
        r"\b(tel|phone|telephone|telefon|teléfono|téléphone|telefono|telefone|mobile|handy|fax|call|"
        r"call us|whatsapp|viber)\b[\s.:#/\-]{0,4}\(?\d([\s().\-/]{0,3}\d){6,14}",
        r"(тел|телефон)[\s.:]{0,3}\(?\d([\s().\-/]{0,3}\d){6,14}",
    ]
)
