// filetype.c: see filetype.h.
#include "io/filetype.h"

#include <ctype.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

enum { HEAD = 512 };

typedef enum {
    KIND_UNKNOWN,
    KIND_HDF5,
    KIND_GGUF,
    KIND_SAFETENSORS,
    KIND_PICKLE,
    KIND_ZIP,
    KIND_GZIP,
    KIND_PARQUET,
    KIND_NETCDF,
    KIND_LFS,
    KIND_HTML,
    KIND_JSON,
    KIND_TEXT,
    KIND_EMPTY,
    KIND_HF_FOLDER,
    KIND_FOLDER
} Kind;

static const char *const words[] = {[KIND_HDF5] = "an HDF5 file",
                                    [KIND_GGUF] = "a GGUF file",
                                    [KIND_SAFETENSORS] = "a safetensors file",
                                    [KIND_PICKLE] = "a pickle (an older PyTorch checkpoint)",
                                    [KIND_ZIP] = "a zip archive (as torch.save writes: pytorch_model.bin, .pt)",
                                    [KIND_GZIP] = "a gzip file",
                                    [KIND_PARQUET] = "a Parquet file",
                                    [KIND_NETCDF] = "a NetCDF file (a run's history or rollouts)",
                                    [KIND_LFS] = "a Git LFS pointer, not the file itself: git lfs pull fetches it",
                                    [KIND_HTML] = "an HTML page, as a failed download leaves it",
                                    [KIND_JSON] = "JSON",
                                    [KIND_TEXT] = "text",
                                    [KIND_EMPTY] = "empty",
                                    [KIND_HF_FOLDER] = "a Hugging Face folder",
                                    [KIND_FOLDER] = "a folder"};

// ---- what it is ----

static bool is_text(const unsigned char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!s[i] || (s[i] < 32 && !strchr("\n\r\t\f", s[i]))) return false;
    return true;
}

static Kind kind_of_text(const char *s, size_t n) {
    size_t at = 0;
    while (at < n && isspace((unsigned char)s[at])) at++;
    if (at == n) return KIND_TEXT;
    if (n - at > 9 && (!strncasecmp(s + at, "<!doctype", 9) || !strncasecmp(s + at, "<html", 5))) return KIND_HTML;
    if (n - at > 23 && !strncmp(s + at, "version https://git-lfs", 23)) return KIND_LFS;
    if (s[at] == '{') return KIND_JSON;
    const char next = s[at] == '[' && at + 1 < n ? s[at + 1] : 'x'; // "[section]" is text
    return strchr("[{\"]-0123456789 \n\r\t", next) && next ? KIND_JSON : KIND_TEXT;
}

static Kind kind_of(const unsigned char *s, size_t n) {
    static const struct {
        const char *magic;
        size_t bytes;
        Kind kind;
    } table[] = {{"\x89HDF\r\n\x1a\n", 8, KIND_HDF5}, {"GGUF", 4, KIND_GGUF},     {"PK\x03\x04", 4, KIND_ZIP},
                 {"\x1f\x8b", 2, KIND_GZIP},          {"PAR1", 4, KIND_PARQUET},  {"CDF\x01", 4, KIND_NETCDF},
                 {"CDF\x02", 4, KIND_NETCDF},         {"CDF\x05", 4, KIND_NETCDF}};
    if (n == 0) return KIND_EMPTY;
    for (int i = 0; i < DS_COUNT(table); i++)
        if (n >= table[i].bytes && !memcmp(s, table[i].magic, table[i].bytes)) return table[i].kind;
    // The length of a header of at most 100 MB, then its JSON.
    if (n > 9 && s[8] == '{' && !s[4] && !s[5] && !s[6] && !s[7] && s[3] < 8) return KIND_SAFETENSORS;
    if (n > 2 && s[0] == 0x80 && s[1] >= 2 && s[1] <= 5) return KIND_PICKLE;
    return is_text(s, n) ? kind_of_text((const char *)s, n) : KIND_UNKNOWN;
}

static Kind kind_of_folder(const char *path) {
    char *config = mem_printf("%s/config.json", path);
    const bool there = file_exists(config);
    mem_free(config);
    return there ? KIND_HF_FOLDER : KIND_FOLDER;
}

static Kind look(const char *path) {
    unsigned char head[HEAD];
    if (file_is_dir(path)) return kind_of_folder(path);
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const ssize_t n = fd >= 0 ? pread(fd, head, sizeof head, 0) : -1;
    if (fd >= 0) close(fd);
    return n < 0 ? KIND_UNKNOWN : kind_of(head, (size_t)n);
}

// ---- what to do ----

static bool may_be(Kind kind, FileWanted wanted) {
    switch (wanted) {
    case FILETYPE_MODEL:
    case FILETYPE_DATASET: return kind == KIND_UNKNOWN || kind == KIND_HDF5;
    case FILETYPE_FOREIGN_MODEL:
        return kind == KIND_UNKNOWN || kind == KIND_HF_FOLDER || kind == KIND_FOLDER || kind == KIND_GGUF ||
               kind == KIND_SAFETENSORS || kind == KIND_JSON;
    case FILETYPE_LINES: break;
    }
    return kind == KIND_UNKNOWN || kind == KIND_JSON || kind == KIND_TEXT || kind == KIND_GZIP || kind == KIND_EMPTY;
}

const char *filetype_pickle_advice(void) {
    return "a pickle can run code while it is read, so it is not read here; in transformers "
           "model.save_pretrained(DIR, safe_serialization=True) makes a folder that bin/dschat-model import takes";
}

static char *advice(Kind kind, FileWanted wanted, const char *path) {
    const bool pickled = kind == KIND_PICKLE || kind == KIND_ZIP;
    const bool foreign = kind == KIND_GGUF || kind == KIND_HF_FOLDER || kind == KIND_SAFETENSORS;
    if (wanted == FILETYPE_LINES) return mem_strdup("expected JSON lines, plain or gzip: one object a line");
    if (wanted == FILETYPE_DATASET)
        return mem_strdup("expected a data set, which bin/dschat-data build makes of JSON lines");
    if (pickled) return mem_strdup(filetype_pickle_advice());
    if (wanted == FILETYPE_FOREIGN_MODEL && kind == KIND_HDF5)
        return mem_strdup("if it is a model of this program, nothing has to be imported");
    if (wanted == FILETYPE_FOREIGN_MODEL)
        return mem_strdup("expected a Hugging Face folder, a safetensors file with its config.json, or a GGUF file");
    if (foreign) return mem_printf("bin/dschat-model import %s models/NAME.h5 makes a model of it", path);
    return mem_strdup("expected a model.h5, as bin/dschat-model import makes it");
}

Err filetype_expect(const char *path, FileWanted wanted) {
    const Kind kind = look(path);
    if (may_be(kind, wanted)) return DS_OK;
    char *what = advice(kind, wanted, path);
    const bool wants_hdf5 = wanted == FILETYPE_MODEL || wanted == FILETYPE_DATASET;
    Err err =
        err_set(DS_ERR_DATA, "%s: is %s%s; %s", path, wants_hdf5 ? "not an HDF5 file but " : "", words[kind], what);
    mem_free(what);
    return err;
}

bool filetype_is_gguf(const char *path) { return look(path) == KIND_GGUF; }
