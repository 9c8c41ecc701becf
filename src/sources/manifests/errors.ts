export type ManifestErrorCode =
  /** The path does not exist or can't be read. */
  | 'MANIFEST_PATH'
  /** A file is neither YAML nor JSON. */
  | 'MANIFEST_SYNTAX'
  /** An object has a wrong or missing field. */
  | 'MANIFEST_INVALID';

export interface ManifestPlace {
  readonly file: string;
  /** Counted from 1; 0 when unknown. */
  readonly line: number;
  readonly column: number;
}

/** Why a set of manifests can't be used. The message starts with file:line:column, as compilers print it. */
export class ManifestError extends Error {
  override readonly name = 'ManifestError';
  readonly code: ManifestErrorCode;
  readonly place: ManifestPlace;
  /** Field path such as 'spec.ports[0].port'; '' when the trouble is not in a field. */
  readonly field: string;

  constructor(
    code: ManifestErrorCode,
    place: ManifestPlace,
    field: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super(`${placeText(place)}: ${message}`, options);
    this.code = code;
    this.place = place;
    this.field = field;
  }
}

export function placeText(place: ManifestPlace): string {
  return place.line === 0 ? place.file : `${place.file}:${place.line}:${place.column}`;
}
