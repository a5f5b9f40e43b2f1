process XMODAL_EVALUATE {
    tag "${meta.id}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/crossmodal/xmodal:0.1.0"

    input:
    // targets: the modality that each file of `predictions` predicts, in the same order
    // embedding, annotation, description, generated: what XMODAL_EMBED, XMODAL_ANNOTATE, XMODAL_DESCRIBE (json) or XMODAL_GENERATE
    // wrote; one of them in place of predictions ([] and []), the others [];
    // none of them with --drop or --noise in ext.args, which ask the checkpoint
    tuple val(meta), path(cells, stageAs: 'input/*'), val(targets), path(predictions, stageAs: 'prediction?/*'), path(checkpoint, stageAs: 'checkpoint/*'), path(embedding, stageAs: 'embedding/*'), path(annotation, stageAs: 'annotation/*'), path(description, stageAs: 'description/*'), path(generated, stageAs: 'generated/*')
    path ontology // the Cell Ontology, for what is scored by it, or [] for the release that the installed package carries

    output:
    tuple val(meta), path("${prefix}")             , emit: evaluation
    tuple val(meta), path("${prefix}/metrics.json"), emit: metrics
    tuple val(meta), path("${prefix}/scores.tsv")  , emit: scores
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def files = predictions instanceof List ? predictions : [predictions]
    def pairs = [targets, files].transpose().collect { target, file -> "--prediction ${target}=${file}" }.join(' ')
    def others = [
        embedding ? "--embedding ${embedding}" : '',
        annotation ? "--annotation ${annotation}" : '',
        description ? "--description ${description}" : '',
        generated ? "--generated ${generated}" : '',
        ontology ? "--ontology ${ontology}" : '',
    ].findAll().join(' ')
    def model = checkpoint ? "--checkpoint ${checkpoint}" : ''
    """
    xmodal evaluate \\
        ${args} \\
        --overwrite \\
        ${pairs} \\
        ${others} \\
        ${model} \\
        --threads ${task.cpus} \\
        --device cpu \\
        --output-dir ${prefix} \\
        ${cells}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${prefix}
    touch ${prefix}/scores.tsv ${prefix}/features.tsv ${prefix}/umap.tsv
    echo '{}' > ${prefix}/metrics.json
    """
}
