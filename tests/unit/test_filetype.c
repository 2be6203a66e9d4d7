// test_filetype.c: files in the wrong place are called what they are, by their first bytes, with what to do; nothing
// else is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/dataset.h"
#include "io/filetype.h"
#include "io/import.h"
#include "io/jsonl.h"
#include "io/modelfile.h"

static const char dir[] = "build/tmp/filetype";

// Owner: caller.
static char *put(const char *name, const void *bytes, size_t n) {
    char *path = mem_printf("%s/%s", dir, name);
    assert_int_equal(file_make_dirs(dir), DS_OK);
    assert_int_equal(file_write_atomic(path, bytes, n), DS_OK);
    return path;
}

#define BYTES(s) (s), sizeof(s) - 1

static void known_files(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        FileWanted wanted;
        const char *words, *todo; // NULL: accepted
    } cases[] = {
        {BYTES("\x89HDF\r\n\x1a\n\0\0\0\0"), FILETYPE_MODEL, NULL, NULL},
        {BYTES("\x89HDF\r\n\x1a\n\0\0\0\0"), FILETYPE_DATASET, NULL, NULL},
        {BYTES("\x89HDF\r\n\x1a\n\0\0\0\0"), FILETYPE_FOREIGN_MODEL, "an HDF5 file", "nothing has to be imported"},
        {BYTES("\x89HDF\r\n\x1a\n\0\0\0\0"), FILETYPE_LINES, "an HDF5 file", "JSON lines"},
        {BYTES("GGUF\3\0\0\0"), FILETYPE_MODEL, "a GGUF file", "dschat-model import"},
        {BYTES("GGUF\3\0\0\0"), FILETYPE_FOREIGN_MODEL, NULL, NULL},
        {BYTES("\x10\0\0\0\0\0\0\0{\"a\": {}}"), FILETYPE_MODEL, "a safetensors file", "dschat-model import"},
        {BYTES("\x10\0\0\0\0\0\0\0{\"a\": {}}"), FILETYPE_DATASET, "a safetensors file", "dschat-data build"},
        {BYTES("\x10\0\0\0\0\0\0\0{\"a\": {}}"), FILETYPE_FOREIGN_MODEL, NULL, NULL},
        {BYTES("PK\x03\x04\0\0\0"), FILETYPE_MODEL, "torch.save", "safe_serialization"},
        {BYTES("PK\x03\x04\0\0\0"), FILETYPE_FOREIGN_MODEL, "torch.save", "safe_serialization"},
        {BYTES("\x80\x02}q\0"), FILETYPE_MODEL, "a pickle", "safe_serialization"},
        {BYTES("\x1f\x8b\x08\0\0"), FILETYPE_DATASET, "a gzip file", "dschat-data build"},
        {BYTES("\x1f\x8b\x08\0\0"), FILETYPE_LINES, NULL, NULL},
        {BYTES("{\"prompt\": \"a\"}\n"), FILETYPE_DATASET, "JSON", "dschat-data build"},
        {BYTES("{\"prompt\": \"a\"}\n"), FILETYPE_LINES, NULL, NULL},
        {BYTES("PAR1\x15\x04"), FILETYPE_LINES, "a Parquet file", "JSON lines"},
        {BYTES("CDF\x05\0\0\0\0"), FILETYPE_DATASET, "history", "dschat-data build"},
        {BYTES("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), FILETYPE_FOREIGN_MODEL, "Git LFS",
         "git lfs pull"},
        {BYTES("<!DOCTYPE html><html>"), FILETYPE_FOREIGN_MODEL, "HTML", "download"},
        {BYTES("\0\0\0\0\0\0\0\0\0\0\0\0"), FILETYPE_DATASET, NULL,
         NULL}, // a crash left it so: its reader says damaged
        {BYTES("[job]\nseed = 1\n"), FILETYPE_DATASET, "text", "dschat-data build"},
        {BYTES(""), FILETYPE_MODEL, "empty", "dschat-model import"},
        {BYTES("\1\2\3\4\5\6\7\x8e"), FILETYPE_MODEL, NULL, NULL}, // nobody knows it: HDF5 says so
        {BYTES("v"), FILETYPE_LINES, NULL, NULL},
    };
    for (int i = 0; i < DS_COUNT(cases); i++) {
        char *path = put("file", cases[i].bytes, cases[i].n);
        const Err err = filetype_expect(path, cases[i].wanted);
        if (err != (cases[i].words ? DS_ERR_DATA : DS_OK)) fail_msg("case %d: %d, %s", i, err, err_text());
        if (cases[i].words && (!strstr(err_text(), cases[i].words) || !strstr(err_text(), cases[i].todo)))
            fail_msg("case %d: %s", i, err_text());
        err_clear();
        mem_free(path);
    }
}

// Each reader asks.
static void readers_ask(void **state) {
    (void)state;
    ModelFile *model = NULL;
    Dataset *data = NULL;
    ImportSource *source = NULL;
    Jsonl *lines = NULL;
    char *path = put("weights.bin", BYTES("PK\x03\x04\0\0\0"));
    assert_int_equal(modelfile_open(path, &model), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "weights.bin: is not an HDF5 file but a zip archive"));
    err_clear();
    assert_int_equal(dataset_open(path, &data), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "a zip archive"));
    err_clear();
    assert_int_equal(import_open(path, &source), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "a zip archive"));
    err_clear();
    assert_int_equal(jsonl_open(path, &lines), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "a zip archive"));
    err_clear();
    mem_free(path);
}

static void folders(void **state) {
    (void)state;
    ModelFile *model = NULL;
    ImportSource *source = NULL;
    assert_int_equal(file_make_dirs("build/tmp/filetype/hf"), DS_OK);
    mem_free(put("hf/config.json", BYTES("{}")));
    mem_free(put("hf/pytorch_model.bin", BYTES("PK\x03\x04")));
    assert_int_equal(modelfile_open("build/tmp/filetype/hf", &model), DS_ERR_DATA);
    assert_non_null(strstr(err_text(), "a Hugging Face folder; bin/dschat-model import build/tmp/filetype/hf"));
    err_clear();
    assert_int_equal(import_open("build/tmp/filetype/hf", &source), DS_ERR_IO);
    assert_non_null(strstr(err_text(), "but pickles (pytorch_model.bin)"));
    err_clear();
    assert_int_equal(modelfile_open("build/tmp/filetype/none.h5", &model), DS_ERR_IO);
    assert_non_null(strstr(err_text(), "No such file"));
    err_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_files), cmocka_unit_test(readers_ask),
                                       cmocka_unit_test(folders)};
    return cmocka_run_group_tests_name("filetype", tests, NULL, NULL);
}
