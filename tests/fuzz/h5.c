// h5.c: an HDF5 file from a stranger: inspected, and where it is accepted all of it is read, also as a model and as a
// data set. The inspection is a process of its own for each input (lib/inspect.c), so this target is slow.
#include "data/dataset.h"
#include "fuzz.h"
#include "io/h5_attr.h"
#include "io/modelfile.h"

static void look_at_attributes(const H5File *f, const char *object) {
    H5Names names = {0};
    if (h5_attr_list(f, object, &names) == DS_OK)
        for (int64_t i = 0; i < names.n; i++) {
            int64_t integer;
            double real;
            char *text = NULL;
            h5_attr_get_i64(f, object, names.name[i], &integer);
            h5_attr_get_f64(f, object, names.name[i], &real);
            if (h5_attr_get_str(f, object, names.name[i], &text) == DS_OK) mem_free(text);
            err_clear();
        }
    h5_names_free(&names);
    err_clear();
}

static void look_at_data(const H5File *f, const char *object) {
    H5Info info;
    if (h5_info(f, object, &info) == DS_OK && info.count <= 1 << 16) {
        void *x = mem_array(info.count + 1, 8);
        h5_read(f, object, info.dtype, 0, info.count, x);
        mem_free(x);
    }
    err_clear();
}

static void look(const H5File *f, const char *group) {
    H5Names names = {0};
    look_at_attributes(f, group);
    if (h5_list(f, group, &names) == DS_OK)
        for (int64_t i = 0; i < names.n && i < 100; i++) {
            char *path = mem_printf("%s/%s", strcmp(group, "/") ? group : "", names.name[i]);
            if (h5_is_group(f, path)) look(f, path);
            else look_at_attributes(f, path), look_at_data(f, path);
            mem_free(path);
        }
    h5_names_free(&names);
    err_clear();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const char *path = fuzz_file("model.h5", data, n);
    H5File *f = NULL;
    ModelFile *m = NULL;
    Dataset *d = NULL;
    if (h5_open_checked(path, &f) == DS_OK) {
        look(f, "/");
        h5_close(&f);
        if (modelfile_open(path, &m) == DS_OK) modelfile_verify(m, 0, 1);
        modelfile_close(&m);
        err_clear();
        if (dataset_open(path, &d) == DS_OK) dataset_longest(d, DATA_SFT);
        dataset_close(&d);
    }
    err_clear();
    return 0;
}
