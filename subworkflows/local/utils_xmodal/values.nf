// Values and tables judged by their part of a JSON schema; how problems are told.

def readJson(path) {
    return new groovy.json.JsonSlurper().parseText(file(path).text)
}

// The smallest number of single-letter changes that turn a into b.
def editDistance(a, b) {
    return b.toList().inject((0..a.size()).toList()) { above, letter ->
        a.toList().withIndex().inject([above[0] + 1]) { row, item ->
            row + [[row.last() + 1, above[item[1] + 1] + 1, above[item[1]] + (item[0] == letter ? 0 : 1)].min()]
        }
    }.last()
}

// " Did you mean X?" where a known name is near, otherwise "".
def nearest(name, known) {
    if (name.size() > 60) {
        return ''
    }
    def best = known.min { candidate -> editDistance(name.toLowerCase(), candidate) }
    return best && editDistance(name.toLowerCase(), best) <= Math.max(2, name.size().intdiv(3)) ? " Did you mean ${best}?" : ''
}

// A path as the user wrote it: beside the samplesheet first, then where Nextflow was started.
def located(value, folder) {
    def text = value.toString()
    if (text.startsWith('/') || text.contains('://') || !folder) {
        return file(text)
    }
    def beside = folder.resolve(text)
    return beside.exists() ? beside : file(text)
}

// What is wrong with one value, judged by its part of a schema: a list of half sentences.
def valueProblems(value, rule, folder = null) {
    if (rule.type == 'boolean') {
        return value instanceof Boolean ? [] : ["must be true or false, not '${value}'${value.toString() in ['true', 'false'] ? '. What to do: leave out the quotes' : ''}"]
    }
    if (value instanceof Boolean) {
        return ['needs a value']
    }
    if (value instanceof Map || value instanceof List) {
        return ["must be one value, not ${value}"]
    }
    if (rule.type in ['integer', 'number']) {
        return numberProblems(value, rule)
    }
    def text = value.toString()
    if (rule.enum && !(text in rule.enum)) {
        return ["is '${text}' but must be one of: ${rule.enum.join(', ')}.${nearest(text, rule.enum)}${rule.errorMessage ? " ${rule.errorMessage}" : ''}"]
    }
    if (rule.pattern && !(text ==~ rule.pattern) || rule.not?.pattern && text.toLowerCase() ==~ rule.not.pattern) {
        return ["is '${text}' but ${rule.errorMessage ?: "must match ${rule.pattern}"}"]
    }
    return text.contains('://') ? [] : placeProblems(text, rule, folder)
}

// What is wrong with a path on this machine. Stub runs read no file, so theirs may be empty.
def placeProblems(text, rule, folder) {
    if (!rule.exists) {
        return []
    }
    def path = located(text, folder)
    if (!path.exists()) {
        return ["file not found: ${text}. What to do: mend the path; it is looked up ${folder ? 'beside the samplesheet, then ' : ''}where Nextflow was started"]
    }
    if (path.isDirectory()) {
        return ["is a folder, not a file: ${text}. What to do: give the file in it"]
    }
    if (!java.nio.file.Files.isReadable(path)) {
        return ["may not be read: ${text}. What to do: change its permissions"]
    }
    if (path.size() == 0 && rule.mimetype != 'text/csv' && !workflow.stubRun) {
        return ["is empty (0 bytes): ${text}. What to do: copy or download it again"]
    }
    return []
}

def numberProblems(value, rule) {
    def whole = value instanceof Integer || value instanceof Long
    if (!(value instanceof Number) || value.toDouble().isNaN() || (rule.type == 'integer' && !whole)) {
        def quoted = value instanceof CharSequence && value ==~ /-?[0-9]+(\.[0-9]+)?/
        return ["must be a ${rule.type == 'integer' ? 'whole number' : 'number'}, not '${value}'${quoted ? '. What to do: leave out the quotes' : ''}"]
    }
    if (rule.minimum != null && value < rule.minimum || rule.maximum != null && value > rule.maximum) {
        def most = rule.maximum != null ? " and ${rule.maximum}" : ''
        return ["is ${value} but must be ${most ? 'between' : 'at least'} ${rule.minimum}${most}"]
    }
    return []
}

// The lines of a CSV file that hold something: [line number, [cells]]. Cells without a column that are empty are left away.
def csvLines(text) {
    def lines = text.replace('\uFEFF', '')
        .readLines()
        .withIndex(1)
        .collect { line, number -> [number, line] }
        .findAll { _number, line -> line.trim() && !line.startsWith('#') }
        .collect { number, line -> [number, line.split(/,(?=(?:[^"]*"[^"]*")*[^"]*$)/, -1).collect { cell -> cell.trim().replaceAll(/^"(.*)"$/, '$1').replace('""', '"').trim() }] }
        .findAll { _number, cells -> cells.any() }
    def width = lines ? lines[0][1].findLastIndexOf { cell -> cell != '' } + 1 : 0
    return lines.collect { number, cells -> [number, cells.drop(width).any() ? cells : cells.take(width)] }
}

// Rows of the samplesheet: [line, {column: value}], and all problems of its form.
def sheetRows(path, schema, example = 'sample,role,rna,atac') {
    if (!path.exists() || path.isDirectory()) {
        return [[], ["${path.name}: ${path.exists() ? 'is a folder' : 'file not found'}: ${path}. What to do: give a CSV file"]]
    }
    def text = new String(path.bytes, 'UTF-8')
    if (text.startsWith('PK') || text.contains('\u0000') || text.contains('\uFFFD')) {
        return [[], ["${path.name}: is not plain text in UTF-8. What to do: save it as CSV UTF-8 with commas"]]
    }
    def lines = csvLines(text)
    def columns = schema.items.properties
    if (!lines) {
        return [[], ["${path.name}: is empty. What to do: give a header line such as ${example} and a line for each ${example.tokenize(',')[0]}"]]
    }
    def header = lines[0][1]
    def separator = header.size() == 1 ? [';': 'semicolons', '\t': 'tabs'].find { sign, _name -> header[0].contains(sign) } : null
    if (separator) {
        return [[], ["${path.name}: its cells are separated by ${separator.value}. What to do: save it as CSV with commas"]]
    }
    def first = "line ${lines[0][0]}"
    def strange = header.findAll { name -> !columns.containsKey(name) }.unique(false).collect { name -> name ? "${first}: no such column '${name}'.${nearest(name, columns.keySet())}" : "${first}: a column has no name" }
    def twice = header.findAll { name -> header.count(name) > 1 }.unique(false).collect { name -> "${first}: column '${name}' stands there twice" }
    def lacking = schema.items.required.findAll { name -> !(name in header) }.collect { name -> "${first}: the column '${name}' is missing. What to do: write it into the header, such as ${example}" }
    def uneven = lines.tail().findAll { line -> line[1].size() != header.size() }.collect { line -> "line ${line[0]}: has ${line[1].size()} cells, but the header has ${header.size()}" }
    def rows = lines.tail().findAll { line -> line[1].size() == header.size() }.collect { line ->
        [line[0], [header, line[1]].transpose().collectEntries().findAll { name, value -> value != '' || name in schema.items.required }]
    }
    def none = lines.size() == 1 ? ["${path.name}: has a header but no ${example.tokenize(',')[0]}"] : []
    return [rows, strange + twice + lacking + uneven + none]
}

// The line a problem is about; 0 where it is about the whole samplesheet.
def lineOf(problem) {
    def found = problem =~ /^lines? (\d+)/
    return found ? found[0][1].toInteger() : 0
}

// Stop before anything runs, with everything that is wrong; of many things the first 20. found: [what cannot be used: problems]
def refuse(found) {
    def parts = found.collect { what, problems ->
        def more = problems.size() > 20 ? ["  - and ${problems.size() - 20} more"] : []
        "${what}\n\n${(problems.take(20).collect { problem -> "  - ${problem}" } + more).join('\n')}"
    }
    error("${parts.join('\n\n')}\n\nNothing was run. --help lists the parameters; docs/usage.md describes the samplesheet.\n")
}
