// origin.c: origin_fill (io/origin.h) for the targets: the program's asks the dynamic linker for all shared objects, in
// each execution a sixth of its time.
#include "io/origin.h"

void __wrap_origin_fill(Origin *o, const char *program, const OriginLib *libs, int n_libs);

void __wrap_origin_fill(Origin *o, const char *program, const OriginLib *libs, int n_libs) {
    origin_add(o, "program", program);
    for (int i = 0; i < n_libs; i++) origin_add(o, libs[i].name, libs[i].version);
}
