import json

import pytest

from edgeasr.errors import ConfigError
from edgeasr.tokenizer import BLANK, Tokenizer
from edgeasr.train.pieces import find_pieces, main, read_tokens, write_tokens

TEXTS = ["the cat sat on the mat", "that hat is on the cat", "the rat and the bat chat", "a cat is that"] * 3


def test_pieces_cut_texts_as_sentencepiece_does():
    sentencepiece = pytest.importorskip("sentencepiece", reason="finding pieces needs the extra `train`")
    tokenizer = find_pieces(TEXTS, 30)
    assert len(tokenizer) == 30
    assert " the" in tokenizer.tokens
    normal = " ".join(TEXTS[:4])
    ids = tokenizer.encode(normal)
    assert tokenizer.decode(ids) == normal
    assert len(ids) < 0.6 * len(normal)
    # The same merges as the library's own: its model is made again from the same texts.
    import io

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=30, model_type="bpe", character_coverage=1.0,
        normalization_rule_name="identity", unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1, num_threads=1, minloglevel=2,
    )  # fmt: skip
    library = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    for text in (*TEXTS[:4], "bat on a chat", "hms"):
        assert tokenizer.encode(text) == library.encode(text)


def test_a_size_that_texts_cannot_give_is_refused():
    pytest.importorskip("sentencepiece", reason="finding pieces needs the extra `train`")
    with pytest.raises(ConfigError, match="cannot find 3 pieces in these texts"):
        find_pieces(TEXTS, 3)


def test_tokens_are_written_and_read_again(tmp_path):
    tokenizer, path = Tokenizer((BLANK, " the", " ", "t", "h", "e")), tmp_path / "new" / "pieces.tokens"
    write_tokens(path, tokenizer)
    assert path.read_text() == " the\n \nt\nh\ne\n"
    assert read_tokens(path) == tokenizer


@pytest.mark.parametrize(
    ("text", "reason"), [("a\nb\n", "without a space"), (" \na\n\nb\n", "wanted letters"), ("", "space")]
)
def test_files_that_are_no_tokens_are_refused(tmp_path, text, reason):
    path = tmp_path / "pieces.tokens"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"cannot use the tokens of .*pieces.tokens: .*{reason}"):
        read_tokens(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_tokens(tmp_path / "missing")


def test_the_command_reads_manifests(tmp_path, monkeypatch):
    pytest.importorskip("sentencepiece", reason="finding pieces needs the extra `train`")
    manifest, output = tmp_path / "train.jsonl", tmp_path / "pieces.tokens"
    rows = ({"audio_filepath": "a.wav", "duration": 1.0, "text": text.upper()} for text in TEXTS)
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("sys.argv", ["pieces", str(manifest), "--size", "25", "--output", str(output)])
    main()
    assert len(read_tokens(output)) == 25
