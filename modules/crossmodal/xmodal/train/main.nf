process XMODAL_TRAIN {
    tag "${meta.id}"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "${ task.accelerator ? 'ghcr.io/crossmodal/xmodal:0.1.0-cuda' : 'ghcr.io/crossmodal/xmodal:0.1.0' }"

    input:
    // trial: what to train, a map of model, settings (a list of NAME=VALUE), seed and held_out (true for a trial of a sweep,
    // which learns nothing from validation cells and may fail without a checkpoint); or [:] where ext.args says it
    tuple val(meta), path(cells, stageAs: 'input/*'), val(trial)
    path gene_table
    path links
    path label_terms // what labels mean: a table of labels and ids of the Cell Ontology, or []
    path ontology    // the Cell Ontology, or [] for the release that the installed package carries
    path text_model  // folder of a text encoder, or [] for that of the installed package
    path init        // what `xmodal pretrain` left, to begin with, or []

    output:
    tuple val(meta), path("${prefix}")                  , emit: training
    tuple val(meta), path("${prefix}/model.safetensors"), emit: checkpoint, optional: true
    tuple val(meta), path("${prefix}/history.tsv")      , emit: history, optional: true
    tuple val(meta), path("${prefix}/metrics.json")     , emit: metrics
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def device = task.accelerator ? 'cuda' : 'cpu'
    def genes = gene_table ? "--gene-table ${gene_table}" : ''
    def pairs = links ? "--links ${links}" : ''
    def texts = [
        label_terms ? "--label-terms ${label_terms}" : '',
        ontology ? "--ontology ${ontology}" : '',
        text_model ? "--text-model ${text_model}" : '',
        init ? "--init ${init}" : '',
    ].findAll().join(' ')
    def chosen = trial ? ["--model ${trial.model}", "--seed ${trial.seed}"] + trial.settings.collect { pair -> "--set '${pair}'" } + (trial.held_out ? ['--trial'] : []) : []
    // What ended the attempt before (time, memory, a node taken back) left the state of its last epochs behind.
    def earlier = task.previousTrace ? "--resume-from ${task.previousTrace.workdir}/" : ''
    """
    xmodal train \\
        ${args} \\
        --overwrite \\
        ${chosen.join(' ')} \\
        ${genes} \\
        ${pairs} \\
        ${texts} \\
        ${earlier}${earlier ? prefix : ''} \\
        --threads ${task.cpus} \\
        --device ${device} \\
        --output-dir ${prefix} \\
        ${cells}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${prefix}
    touch ${prefix}/model.safetensors ${prefix}/history.tsv
    echo '{}' > ${prefix}/metrics.json
    """
}
