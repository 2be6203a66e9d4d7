# sweep.gp: performance.csv -> performance.svg, a panel a curve. Called with csv and svg set.
set terminal svg size 1000,760 font "sans,13" background "#ffffff"
set output svg
set datafile separator ","
set key left bottom
set grid back lt 1 lw 0.5 lc rgb "#dddddd"
set style data linespoints
set ylabel "tokens/s"
set logscale xy
set style line 1 lc rgb "#1f5fa8" lw 2 pt 7 ps 0.7
set style line 2 lc rgb "#c8551b" lw 2 pt 5 ps 0.7
set style line 3 lc rgb "#3c8c3c" lw 2 pt 9 ps 0.7

# The lines of one curve and phase: x is column 2, weights are column 7, tokens a second column 9.
only(curve, phase) = sprintf("< awk -F, '$1 == \"%s\" && $6 == \"%s\"' %s", curve, phase, csv)

set multiplot layout 2,2
set title "Size of the model"
set xlabel "weights, millions"
plot only("size", "sft") using ($7 / 1e6):9 ls 1 title "sft", \
     only("size", "gen") using ($7 / 1e6):9 ls 2 title "generate"
set title "Length, at the same tokens a batch"
set xlabel "tokens of a sequence"
plot only("length", "sft") using 2:9 ls 1 title "sft", \
     only("length", "gen") using 2:9 ls 2 title "generate"
set title "Batch"
set xlabel "sequences decoded at once"
plot only("batch", "gen") using 2:9 ls 2 title "generate"
set title "Ranks and threads"
set xlabel "ranks x threads"
unset logscale
set yrange [0:*]
set offsets 0, 0, graph 0.25, 0
set key left top horizontal samplen 1
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.8 noborder
unset grid
set grid ytics lc rgb "#dddddd"
plot only("ranks", "sft") using 9:xtic(2) ls 1 title "sft", \
     only("ranks", "gen") using 9 ls 2 title "generate", \
     only("ranks", "iteration") using 9 ls 3 title "PPO iteration"
unset multiplot
