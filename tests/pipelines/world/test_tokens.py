from pipelines.world.scene import WorldConfig, sample_scenes
from pipelines.world.tokens import CLIP_CONTEXT, clip_tokenizer
from pipelines.world.writers import upsample, write_alt, write_descriptive, write_short

SCENES = sample_scenes(WorldConfig.small(), 1000, seed=1)


def test_no_descriptive_caption_is_truncated_by_the_clip_tokenizer() -> None:
    tokenizer = clip_tokenizer()
    short = write_short(SCENES, 1)
    alt = [text.text for text in write_alt(SCENES, 1)]
    texts = [*write_descriptive(SCENES, 1, relation_share=1.0), *upsample(short, 1), *alt]
    encoded = tokenizer(texts).input_ids
    assert max(len(ids) for ids in encoded) <= CLIP_CONTEXT
    assert not any(tokenizer.unk_token_id in ids for ids in encoded)


def test_the_end_token_has_the_highest_id_where_open_clip_pools() -> None:
    tokenizer = clip_tokenizer()
    ids = tokenizer("a red ring", padding="max_length", max_length=8).input_ids
    words = tokenizer.convert_ids_to_tokens(ids)
    assert words == ["<s>", "red", "ring", "</s>", *["<pad>"] * 4]
    assert max(ids) == tokenizer.eos_token_id
