"""A compressed corpus that was cut off or changed is refused; what is read is all of it, within limits of memory."""

import bz2
import gzip
import io
import lzma
import os
import random
import struct
import subprocess
import sys
import textwrap
import tracemalloc

import pytest
import zstandard

from babelscope.cli.asking import read_prompts
from babelscope.corpus import load_corpus, text_lines
from babelscope.errors import CorpusError, PrerequisiteError
from babelscope.evaluation import load_answers, load_prompts
from babelscope.files.limits import LINE, TEXT, Limit

CUTS = FLIPS = 250
WORDS = random.Random(0).choices([f"sana{number}" for number in range(3000)], k=6000)
LINES = [" ".join(WORDS[start : start + 8]) for start in range(0, 6000, 8)]
PLAIN = "".join(f"{line}\n" for line in LINES).encode()


def zstd(data, checksum=True):
    return zstandard.ZstdCompressor(write_checksum=checksum).compress(data)


def zstd_stream(data):
    """A frame that does not say how much it holds, of many blocks."""
    out = io.BytesIO()
    with zstandard.ZstdCompressor(write_checksum=True).stream_writer(out, closefd=False) as writer:
        for start in range(0, len(data), 2000):
            writer.write(data[start : start + 2000])
            writer.flush(zstandard.FLUSH_BLOCK)
    return out.getvalue()


def several(compress):
    """The same text in several streams one after the other, as parallel compressors write it."""
    cut = [PLAIN[start : start + 7001] for start in range(0, len(PLAIN), 7001)]
    return [compress(part) for part in cut]


FORMS = {
    "gz": (".gz", [gzip.compress(PLAIN)]),
    "gz, several": (".gz", several(gzip.compress)),
    "bz2": (".bz2", [bz2.compress(PLAIN)]),
    "bz2, several": (".bz2", several(bz2.compress)),
    "xz": (".xz", [lzma.compress(PLAIN)]),
    "xz, several": (".xz", several(lzma.compress)),
    "zst": (".zst", [zstd(PLAIN)]),
    "zst, several": (".zst", several(zstd)),
    "zst, blocks": (".zst", [zstd_stream(PLAIN)]),
    "zst, no checksum": (".zst", [zstd(PLAIN, checksum=False)]),
}


def read(path):
    return [line for _, line in text_lines(path)]


@pytest.mark.parametrize("form", FORMS)
def test_all_of_a_file_is_read_and_no_cut_is_taken_for_a_shorter_file(tmp_path, form):
    suffix, streams = FORMS[form]
    path, whole = tmp_path / f"fi.txt{suffix}", b"".join(streams)
    path.write_bytes(whole)
    assert read(path) == LINES
    ends = {sum(map(len, streams[:number])) for number in range(len(streams) + 1)}
    places = {len(whole) - 1, len(whole) - 4, 1, *random.Random(1).sample(range(1, len(whole)), CUTS)} - ends
    assert len(places) >= 200
    for place in places:
        path.write_bytes(whole[:place])
        with pytest.raises(CorpusError, match="unreadable .*fetch it again") as caught:
            load_corpus(tmp_path, split="all")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_a_flipped_bit_is_refused_wherever_there_is_a_checksum(tmp_path, form):
    suffix, streams = FORMS[form]
    path, whole, draw = tmp_path / f"fi.txt{suffix}", bytearray(b"".join(streams)), random.Random(2)
    refused = 0
    for _ in range(FLIPS):
        place, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
        whole[place] ^= bit
        path.write_bytes(whole)
        whole[place] ^= bit
        try:
            lines = read(path)
        except CorpusError as err:
            refused += 1
            assert "\n" not in str(err)
            continue
        assert "no checksum" in form or lines == LINES  # such as the time in the head of a .gz
    assert refused > (0.3 if "no checksum" in form else 0.9) * FLIPS


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_bytes_behind_the_end_are_refused(tmp_path, suffix):
    path, whole = tmp_path / f"fi.txt{suffix}", FORMS[suffix[1:]][1][0]
    path.write_bytes(whole + b"more")
    with pytest.raises(CorpusError, match="unreadable"):
        read(path)


def test_padding_that_the_formats_allow_is_passed_over(tmp_path):
    skipped = struct.pack("<II", 0x184D2A53, 5) + b"notes"
    for suffix, content in {
        ".gz": gzip.compress(PLAIN) + b"\0" * 512,
        ".xz": lzma.compress(PLAIN) + b"\0" * 8,
        ".zst": skipped + zstd(PLAIN[:5000]) + skipped + zstd(PLAIN[5000:]),
    }.items():
        path = tmp_path / f"fi.txt{suffix}"
        path.write_bytes(content)
        assert read(path) == LINES


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_lines_of_old_macs_are_lines_in_every_reader(tmp_path, suffix):
    def write(name, text):
        (tmp_path / f"{name}{suffix}").write_bytes(gzip.compress(text.encode()) if suffix else text.encode())
        return tmp_path / f"{name}{suffix}"

    assert read(write("en.txt", "one\r\rtwo\rthree")) == ["one", "", "two", "three"]
    write("fi.txt", "\ufeffyksi\r\rkaksi\r")
    write("de.jsonl", '{"text": "eins"}\r{"text": "zwei"}\r')
    corpus = load_corpus(tmp_path)
    assert {tag: [document.id for document in texts] for tag, texts in corpus.items()} == {
        "de": ["0", "1"],
        "en": ["0", "2", "3"],
        "fi": ["0", "2"],
    }
    assert [answer.text for answer in load_answers(tmp_path / f"fi.txt{suffix}")] == ["yksi", "", "kaksi"]
    assert [prompt.text for prompt in read_prompts([str(tmp_path / f"fi.txt{suffix}")])] == ["yksi", "kaksi"]
    for name, cell in (("t.csv", ","), ("t.tsv", "\t")):
        table = write(name, f"language{cell}text\ren{cell}one\ren{cell}two\r")
        assert [document.text for document in load_corpus(table, split="all")["en"]] == ["one", "two"]


def test_a_carriage_return_inside_a_line_is_said_and_does_not_cut_it(tmp_path, caplog):
    (tmp_path / "en.txt").write_bytes(b"one\rstill one\r\ntwo\r\r\nthree\r")
    assert read(tmp_path / "en.txt") == read(tmp_path / "en.txt") == ["one\rstill one", "two\r", "three"]
    assert caplog.text.count("en.txt: 1 lines hold a carriage return") == 1


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_lines_are_the_same_as_python_cuts_them(tmp_path, suffix):
    """Against `bytes.split` on random bytes with many line ends, in pieces of every length."""
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}[suffix]
    path, draw = tmp_path / f"x{suffix}", random.Random(3)
    for size in (0, 1, 2, 65535, 65536, 65537, 200_000):
        text = "".join(draw.choices("ab\n\r\u2028ä", weights=[9, 9, 2, 1, 1, 5], k=size))
        path.write_bytes(pack(text.encode()))
        expected = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
        assert read(path) == expected


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_small_file_of_very_much_text_is_refused_and_the_setting_named(tmp_path, monkeypatch, suffix):
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}[suffix]
    path = tmp_path / f"en.txt{suffix}"
    monkeypatch.setenv(TEXT.setting, "4")
    monkeypatch.setenv(LINE.setting, "1")
    for bomb, limit in ((b"a" * (3 << 20), LINE), (b"\n" * 30_000, TEXT), (b"a word\n" * 30_000, TEXT)):
        path.write_bytes(pack(bomb))
        with pytest.raises(CorpusError, match=f"set {limit.setting} higher"):
            load_corpus(tmp_path, split="all")
        with pytest.raises(CorpusError, match=f"set {limit.setting} higher"):
            load_prompts(tmp_path, kind="clas")
        with pytest.raises(CorpusError, match=f"set {limit.setting} higher"):
            load_answers(tmp_path)
    monkeypatch.setenv(TEXT.setting, "20")
    assert len(read(path)) == 30_000


@pytest.mark.parametrize("written", ["", "0", "-1", "1.5", "lots", "٣", str(1 << 60)])
def test_a_limit_that_is_no_number_is_refused(monkeypatch, written):
    limit = Limit("BABELSCOPE_MAX_TEST_MIB", 7)
    assert limit.bytes == 7 << 20
    monkeypatch.setenv(limit.setting, written)
    with pytest.raises(PrerequisiteError, match="expected a number of MiB above zero"):
        _ = limit.bytes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read as Linux gives it")
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_memory_does_not_grow_with_the_file(tmp_path, suffix):
    """A file of ten times the size costs a reader that keeps nothing less than 4 MiB more, in a process of its own."""
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstd}[suffix]
    code = """
        import resource, sys
        from pathlib import Path
        from babelscope.corpus.file_lines import text_lines
        assert sum(1 for _ in text_lines(Path(sys.argv[1]))) > 1000
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    """
    peaks = []
    for times in (20, 200):
        path = tmp_path / f"{times}.txt{suffix}"
        path.write_bytes(pack(PLAIN * times))
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), path],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 4


def test_of_a_text_that_is_dealt_out_the_other_splits_are_never_all_in_memory(tmp_path):
    lines = [f"{number} {' '.join(WORDS[number : number + 40])}" for number in range(5000)]
    (tmp_path / "fi.txt").write_text("\n".join(lines))

    def peak(split):
        tracemalloc.start()
        corpus = load_corpus(tmp_path, split=split)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(len(document.text) for document in corpus["fi"]) > 50_000
        return most

    load_corpus(tmp_path, split="test")  # what is imported once is not counted
    assert peak("test") < 0.5 * peak("all")
