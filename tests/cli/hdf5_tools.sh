#!/bin/bash
# HDF5's own tools on what this program writes: list, dump, copy, repack, diff. Prints "ok NAME" or "FAIL NAME: why".
set -u
BUILD=${BUILD:-build}
MODEL=$BUILD/tests/unit/test_modelfile
CKPT=$BUILD/tests/unit/test_ckpt
D=build/tmp/hdf5_tools
rm -rf $D && mkdir -p $D
failed=0

ok() { echo "ok hdf5_tools $1"; }
bad() { echo "FAIL hdf5_tools $1: $2"; failed=1; }
# check NAME COMMAND...: the command succeeds
check() {
    local name=$1 out
    shift
    out=$("$@" 2>&1) && ok "$name" || bad "$name" "$* gave $?: $(tail -1 <<<"$out")"
}
# The values of a data set, one a line.
values() { h5dump -y -w 1 -m %.9g -d "$2" "$1" | awk '/ DATA \{/ {on = 1; next} on && /}/ {exit} on' | tr -d ' ,'; }
same() { [ -s "$1" ] && cmp -s "$1" "$2"; }

W=/weights/model.layers.1.mlp.up_proj.weight
$MODEL write $D/one.h5 bf16 0 && $MODEL write $D/many.h5 bf16 3 || bad write "cannot write the models"
values $D/one.h5 $W >$D/one.txt

h5ls -r $D/many.h5 >$D/ls.txt
grep -q "$W *Dataset {20, 12}" $D/ls.txt && ok h5ls || bad h5ls "$(grep up_proj $D/ls.txt)"

values $D/many.h5 $W >$D/many.txt
same $D/one.txt $D/many.txt && [ "$(wc -l <$D/one.txt)" = 240 ] && ok h5dump || bad h5dump "sharded and single file differ"
h5dump -a /config/layers $D/many.h5 | grep -q '(0): 2' && ok h5dump_config || bad h5dump_config "no layers"

# One tensor into a file of its own; a copied virtual set still looks for its shards beside the copy.
h5copy -p -i $D/one.h5 -o $D/copy.h5 -s $W -d /w && values $D/copy.h5 /w >$D/copy.txt
same $D/one.txt $D/copy.txt && ok h5copy || bad h5copy "the copy differs"
h5copy -p -i $D/many.h5 -o $D/copy2.h5 -s $W -d /w && values $D/copy2.h5 /w >$D/copy2.txt
same $D/one.txt $D/copy2.txt && ok h5copy_sharded || bad h5copy_sharded "the copy differs"

# A sharded model into one file that needs no shards.
mkdir -p $D/alone
check h5repack h5repack -l CONTI $D/many.h5 $D/alone/repacked.h5
check h5repack_loads $MODEL check $D/alone/repacked.h5 bf16
check h5repack_gzip h5repack -l CONTI $D/many.h5 $D/alone/plain.h5
check h5repack_gzip2 h5repack -f SHUF -f GZIP=6 -f FLET $D/alone/plain.h5 $D/alone/gzip.h5
check h5repack_gzip_loads $MODEL check $D/alone/gzip.h5 bf16

# Strips of two tensor ranks' matrices, three shards each: tools see the same whole tensors.
$MODEL write $D/strips.h5 bf16 3 2 || bad write_strips "cannot write the model"
values $D/strips.h5 $W >$D/strips.txt
same $D/one.txt $D/strips.txt && ok h5dump_strips || bad h5dump_strips "strips and single file differ"
check h5repack_strips h5repack -l CONTI $D/strips.h5 $D/alone/strips.h5
check h5repack_strips2 h5repack -f SHUF -f GZIP=6 -f FLET $D/alone/strips.h5 $D/alone/strips_gzip.h5
check h5repack_strips_loads $MODEL check $D/alone/strips.h5 bf16
check h5repack_strips_gzip_loads $MODEL check $D/alone/strips_gzip.h5 bf16

check h5diff_layouts h5diff $D/many.h5 $D/alone/repacked.h5 $W $W
check save mpirun -np 2 $CKPT save $D/a sft 3 rank 2
check save_again mpirun -np 2 $CKPT save $D/b sft 3 rank 2
check save_other mpirun -np 3 $CKPT save $D/c sft 3 one 2
check save_next mpirun -np 2 $CKPT save $D/d sft 4 rank 2
A=sft-000003/actor.h5
check h5diff_same h5diff $D/a/$A $D/b/$A
check h5diff_weights h5diff $D/a/$A $D/c/$A /weights/a.weight /weights/a.weight
check h5diff_trainer h5diff $D/a/sft-000003/trainer.h5 $D/c/sft-000003/trainer.h5
h5diff $D/a/$A $D/d/sft-000004/actor.h5 /weights/a.weight >$D/diff.txt
[ $? = 1 ] && grep -q differences $D/diff.txt && ok h5diff_differs || bad h5diff_differs "no difference found"
diff -r $D/a $D/b >/dev/null && ok same_bytes || bad same_bytes "two equal checkpoints have different bytes"

# A missing shard: tools show nan, our loader names it.
rm $D/many.shards/00001.h5
h5dump -d /weights/model.layers.0.mlp.down_proj.weight $D/many.h5 | grep -q nan && ok missing_shard_nan ||
    bad missing_shard_nan "h5dump shows no nan"
$MODEL open $D/many.h5 2>$D/open.txt
[ $? = 3 ] && grep -q "many.shards/00001.h5 is missing" $D/open.txt && ok missing_shard_named ||
    bad missing_shard_named "$(cat $D/open.txt)"
exit $failed
