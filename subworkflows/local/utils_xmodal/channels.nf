// What goes from step to step: rows of the samplesheet as XMODAL_PREPARE takes them, results as XMODAL_REPORT takes them.

// What the fragments of these rows are counted over; [] where there are none.
def peaksFor(rows, peaks) {
    return rows.any { _meta, files -> files.fragments } ? peaks : []
}

// Samples as one samplesheet for XMODAL_PREPARE, which stages the files as input1/NAME, input2/NAME, ...
def sheetOf(rows) {
    def columns = ['rna', 'atac', 'protein', 'h5mu', 'h5', 'fragments'].findAll { name -> rows.any { _meta, files -> files[name] } }
    def listed = rows.collectMany { meta, files -> columns.findAll { name -> files[name] }.collect { name -> [meta.id, name, files[name]] } }
    def staged = listed.withIndex(1).collectEntries { item, number -> [item.take(2), "input${number}/${item[2].name}"] }
    def lines = rows.collect { meta, _files -> ([meta.id] + columns.collect { name -> staged[[meta.id, name]] ?: '' }).join(',') }
    return [([(['sample'] + columns).join(',')] + lines).join('\n'), listed.collect { item -> item[2] }]
}

// All cells to learn from as one item for XMODAL_PREPARE, in the order of the samplesheet; nothing where there are none.
def trainingSheet(samples, peaks) {
    return samples
        .filter { meta, _files -> meta.role != 'predict' }
        .toSortedList { a, b -> a[0].line <=> b[0].line }
        .filter { rows -> rows }
        .map { rows -> [[id: 'training']] + sheetOf(rows) + [peaksFor(rows, peaks)] }
}

// Columns of obs that group the cells of a sample, by what XMODAL_CHECK found in its files.
def groupsIn(json) {
    def found = new groovy.json.JsonSlurper().parseText(json.text)
    return (found.files ?: []).collectMany { about -> about.labels ? about.labels.keySet() : [] }.unique().sort()
}

// Sentences on columns that were asked for and that no sample has; of cells to learn from XMODAL_PREPARE refuses that.
// groups: of each sample its columns of obs; columns: a map of parameter to column, or null
def unusedColumns(groups, columns) {
    return columns.findAll { _name, column -> column != null && !(column in groups.flatten()) && column != 'xmodal_sample' }
        .collect { name, column -> "--${name} ${column}: no sample has such a column of groups, so it is not used".toString() }
}

// Results of a channel [meta, path] for the report: [what they are, what they are called, path].
def resultsOf(kind, channel) {
    return channel.map { _meta, path -> [kind, path.name, path] }
}

// All results as one input of XMODAL_REPORT, each kind sorted by name; what there is none of is [].
def reportOf(rows) {
    def sorted = rows.sort(false) { row -> row[1] }.groupBy { row -> row[0] }
    def paths = ['training', 'evaluation', 'check', 'prepare', 'prediction', 'selection', 'embedding', 'markers', 'annotation', 'description', 'generated'].collectEntries { kind -> [kind, (sorted[kind] ?: []).collect { row -> row[2] }] }
    def names = (sorted.prediction ?: []).collect { row -> row[1] }
    return [[id: 'report'], paths.training, paths.evaluation, paths.check, paths.prepare, names, paths.prediction, paths.selection, paths.embedding, paths.markers, paths.annotation, paths.description, paths.generated]
}
